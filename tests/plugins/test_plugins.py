"""Each seam takes an addition from outside the packages, and carries it from YAML to report.

The additions are the modules `toy_*.py` beside this file. They are installed as a user's own package is:
found by an entry point, in this process and in those of trials.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.limits import PATIENCE_S

TOYS = sorted(Path(__file__).parent.glob("toy_*.py"))
MAX_LINES = 30


def installed(folder: Path, modules: list[str]) -> dict[str, str]:
    """An environment in which a package with these plugins is installed."""
    about = folder / "toys-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"{name} = {name}" for name in modules]
    (about / "entry_points.txt").write_text("\n".join(["[tfnas.plugins]", *lines]) + "\n")
    root = Path(__file__).parents[2]
    paths = [str(folder), str(Path(__file__).parent), str(root)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return environment | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def tfnas(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from experiments.cli.main import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
    )


@pytest.mark.parametrize("path", TOYS, ids=lambda path: path.stem)
def test_an_addition_takes_at_most_thirty_lines(path: Path) -> None:
    assert sum(bool(line.strip()) for line in path.read_text().splitlines()) <= MAX_LINES


def test_a_plugin_that_cannot_be_imported_is_named_and_nothing_runs(tmp_path: Path) -> None:
    environment = installed(tmp_path, ["broken_toy"])
    (tmp_path / "broken_toy.py").write_text("import a_module_that_is_not_there\n")
    result = tfnas(environment, "describe", "tf-nas-a")
    assert result.returncode == 2
    assert "broken_toy" in result.stderr
    assert "a_module_that_is_not_there" in result.stderr
    assert len(result.stderr.splitlines()) == 1


SPEC = {
    "experiment": "toys",
    "base": {
        "space": "two_kernels",
        "dataset": "stripes",
        "augmentation": "none",
        "batch_size": 8,
        "num_epochs": 2,
        "num_warmup_epochs": 1,
        "target_latency_ms": "50%",
        "latency_table": "table.json",
    },
    "cells": [
        {"method": "tf_nas", "sampling": "bi_next", "objective": "squared"},
        {"method": "tf_nas", "sampling": "single", "objective": "tfnas"},
        {"method": "fastest", "sampling": "single", "objective": "tfnas"},
    ],
    "grid": {"seed": [0]},
    "resources": {"max_concurrent_trials": 1},
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """An environment with the toys, and the folder of a launch that uses them all."""
    folder = tmp_path_factory.mktemp("toys")
    environment = installed(folder / "site", [path.stem for path in TOYS])
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    script = (
        "from nas.space.macro_space import get_space\n"
        "from tests.support.tiny import make_dense_table\n"
        f"make_dense_table(get_space('two_kernels')).save({str(folder / 'table.json')!r})\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    result = tfnas(environment, "launch", folder / "spec.yaml", "--out", folder / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    return environment, folder / "out"


def test_additions_reach_figures_and_report(launched: tuple[dict[str, str], Path]) -> None:
    environment, out = launched
    result = tfnas(environment, "report", "toys", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "(x)" in result.stdout
    assert (out / "figures" / "width.png").is_file()
    page = (out / "report.html").read_text()
    assert "(x) The squared objective narrows networks." in page
    for name in ("fastest", "bi_next", "squared", "widest", "The widest layer of each derived network."):
        assert name in page, name


def test_additions_run_from_yaml_to_results(launched: tuple[dict[str, str], Path]) -> None:
    environment, out = launched
    configs = [yaml.safe_load(path.read_text()) for path in sorted(out.glob("cells/*/artifacts/config.yaml"))]
    assert {config["method"] for config in configs} == {"tf_nas", "fastest"}
    assert {config["sampling"] for config in configs} == {"bi_next", "single"}
    assert {config["objective"] for config in configs} == {"squared", "tfnas"}
    assert {(config["dataset"], config["space"]) for config in configs} == {("stripes", "two_kernels")}
    again = tfnas(environment, "launch", out.parent / "spec.yaml", "--out", out, "--status")
    assert again.stdout.count("finished") == 3
