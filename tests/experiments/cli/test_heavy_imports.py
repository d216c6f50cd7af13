"""Which libraries that are slow to import a command waits for: those that it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from analysis.bundles.bundle_writer import write_bundle
from analysis.reading.store import MlflowStore
from tests.support.exported import exported
from tests.support.limits import PATIENCE_S
from tests.support.synthetic import Store, grid, make_table

HEAVY = {
    *("torch", "torchvision", "ray", "mlflow", "optuna", "sqlalchemy", "pandas", "scipy", "sklearn"),
    *("statsmodels", "matplotlib", "pyarrow", "onnx", "onnxruntime", "numba", "sympy"),
}
"""Libraries that take a tenth of a second to several seconds to import."""

MLFLOW = {"mlflow", "sqlalchemy", "pandas", "pyarrow", "scipy"}
"""MLflow, and what it imports itself."""

READING = {"pandas", "pyarrow", "scipy"}
"""What reads a bundle, without MLflow."""

ALLOWED = {
    "--help": set(),
    "launch --help": set(),
    "demo --help": set(),
    "latency range TABLE": {"scipy"},
    "describe tf-nas-a": set(),
    "describe tf-nas-a --latency TABLE --json": {"scipy"},
    "predict MODEL IMAGE": {"onnxruntime"},
    "compare FIRST SECOND --out OUT": MLFLOW,
    "compare FIRST SECOND --from BUNDLE": READING,
    "figures --from BUNDLE --out DRAWN": READING | {"matplotlib", "statsmodels"},
    "launch CONFIG --out OUT --status": {"torch", "sympy", "scipy", "pyarrow"},
}
"""Heavy libraries that a command may import; words in capitals stand for what the test has made."""

GRID = """
experiment: made_up
base:
  space: paper
  dataset: fashion_mnist_subset
  target_latency_ms: 50%
  latency_table: {table}
grid:
  sampling: [single, bi_random]
"""

SCRIPT = """
import sys
sys.argv = ["tfnas", *sys.argv[1:]]
from experiments.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=open("modules.txt", "w"))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """What the commands are given: files, and runs by their ids."""
    folder = tmp_path_factory.mktemp("files")
    paths = {"TABLE": folder / "table.json", "MODEL": folder / "model.onnx", "IMAGE": folder / "image.png"}
    make_table("paper").save(paths["TABLE"])
    paths["MODEL"].write_bytes(exported())
    Image.new("RGB", (9, 5)).save(paths["IMAGE"])
    store = Store(folder / "out", "made_up")
    first, second = store.add_grid({"target_latency_ms": 1.0}, grid(sampling=("single", "bi_random")))
    config = folder / "grid.yaml"
    config.write_text(GRID.format(table=paths["TABLE"]))
    bundle = folder / "made_up.bundle"
    bundle.write_bytes(write_bundle("made_up", MlflowStore(store.tracking_uri))[0])
    paths |= {"BUNDLE": bundle, "DRAWN": folder / "drawn"}
    return {**paths, "CONFIG": config, "OUT": store.out_dir, "FIRST": first, "SECOND": second}


@pytest.mark.parametrize("command", ALLOWED)
def test_a_command_imports_only_the_heavy_libraries_that_it_needs(
    command: str, given: dict[str, Path | str], tmp_path: Path
) -> None:
    arguments = [str(given.get(word, word)) for word in command.split()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in (tmp_path / "modules.txt").read_text().split()}
    assert not (imported & HEAVY) - ALLOWED[command]
