"""When lookup tables are measured, and what is checked before that, since it takes minutes."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from rich.console import Console

from experiments.console import make_console
from experiments.launching.dry_run import print_dry_run
from experiments.launching.grid_launch import launch
from experiments.specs import preparation
from experiments.specs.grid_file import load_grid
from experiments.specs.study_grid import StudyGrid
from experiments.studies.study_launch import launch_study
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.latency import quiet
from nas.latency.quiet import OtherLoad
from nas.latency.table import LatencyTable
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

BASE = {
    "space": "nano",
    "target_latency_ms": "50%",
    "max_train_images": 60,
    "batch_size": 8,
    "augmentation": "none",
    "num_epochs": 2,
    "num_warmup_epochs": 1,
}


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def write_spec(folder: Path, **sections: Any) -> Path:
    """A grid of searches; `base` leaves out what other sections vary."""
    content = {"experiment": "tested", "base": BASE, "grid": {"seed": [0, 1]}} | sections
    varied = {*(content["grid"] or {}), *content.get("study", {}).get("space", {})}
    content["base"] = {name: value for name, value in content["base"].items() if name not in varied}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
    return path


def table_of(space: str, num_busy_cpus: float, seed: int = 0) -> LatencyTable:
    table = make_dense_table(get_space(space), seed=seed)
    load = {"num_busy_cpus": num_busy_cpus, "num_cpus": 2}
    return table.model_copy(update={"provenance": table.provenance.model_copy(update=load)})


class Measuring:
    """Measures tables in no time, and remembers for which searches."""

    def __init__(self) -> None:
        self.configs: list[SearchConfig] = []
        self.num_busy_cpus = 0.0

    def __call__(self, config: SearchConfig, even_if_busy: bool) -> LatencyTable:
        self.configs.append(config)
        return table_of(config.space, self.num_busy_cpus, seed=len(self.configs))


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    measuring = Measuring()
    monkeypatch.setattr(preparation, "measure_table_of", measuring)
    return measuring


@pytest.fixture
def cells_of(tmp_path: Path) -> Callable[..., tuple[list[Any], list[str]]]:
    """The searches of a grid, as a launch gets them, and what it says meanwhile."""

    def cells_of(**options: Any) -> tuple[list[Any], list[str]]:
        said: list[str] = []
        grid = load_grid(write_spec(tmp_path))
        with grid.place(None) as place:
            return list(grid.cells(tmp_path / "out", place, said.append, **options)), said

    return cells_of


CellsOf = Callable[..., tuple[list[Any], list[str]]]


def test_a_table_of_a_quiet_machine_is_measured_once_for_all_launches(
    measuring: Measuring, cells_of: CellsOf
) -> None:
    first, said = cells_of()
    again, said_again = cells_of()
    assert len(measuring.configs) == 1
    assert [cell.hash for cell in first] == [cell.hash for cell in again]
    assert said[0].startswith("Measuring the lookup table of space 'nano' on ")
    assert said_again == []


def test_a_table_of_a_busy_machine_is_measured_again_by_the_next_launch(
    measuring: Measuring, cells_of: CellsOf
) -> None:
    measuring.num_busy_cpus = 0.9
    first, said = cells_of(even_if_busy=True)
    assert "while other processes used 0.9 CPUs" in said[-1]
    assert "without --even-if-busy measures it again" in said[-1]
    measuring.num_busy_cpus = 0.1
    again, said = cells_of()
    assert len(measuring.configs) == 2
    assert "0.9 CPUs" in said[0]
    assert said[0].endswith("a launch measures it again")
    assert {cell.table_fingerprint for cell in first} != {cell.table_fingerprint for cell in again}
    assert cells_of() == (again, [])


def test_who_insists_resumes_with_the_table_of_a_busy_machine_and_learns_of_it(
    measuring: Measuring, cells_of: CellsOf
) -> None:
    measuring.num_busy_cpus = 0.9
    first, _ = cells_of(even_if_busy=True)
    again, said = cells_of(even_if_busy=True)
    assert len(measuring.configs) == 1
    assert [cell.hash for cell in first] == [cell.hash for cell in again]
    (line,) = said
    assert "measured while other processes used 0.9 CPUs" in line


def test_a_table_that_is_named_is_used_though_it_was_measured_on_a_busy_machine_and_doubted_once(
    tmp_path: Path, measuring: Measuring
) -> None:
    table_of("nano", 0.9).save(tmp_path / "table.json")
    said: list[str] = []
    grid = load_grid(write_spec(tmp_path, base=BASE | {"latency_table": "table.json"}))
    with grid.place(None) as place:
        grid.cells(tmp_path / "out", place, said.append)
    (line,) = said
    assert line.endswith(
        "measured while other processes used 0.9 CPUs, so latencies may be wrong; "
        "measure it again on a quiet machine"
    )


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stays busy."""
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    monkeypatch.setattr(quiet, "measure_load", lambda: OtherLoad(0.9, 2))


@pytest.mark.usefixtures("busy")
def test_a_launch_refuses_to_measure_on_a_busy_machine_and_keeps_nothing(
    tmp_path: Path, cells_of: CellsOf
) -> None:
    with pytest.raises(
        UserError, match=r"^/.*spec.yaml: latency_table: the machine is busy: .*--even-if-busy"
    ):
        cells_of()
    assert not (tmp_path / "out").exists()


def write_images(folder: Path, num_images: int) -> None:
    """Class folders without test images."""
    for index in range(num_images):
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 28, 3), index, np.uint8)).save(path)


OWN_IMAGES = {
    "dataset": "image_folder",
    "data_dir": "images",
    "batch_size": 32,
    "max_train_images": None,
    "num_data_workers": 0,
}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"base": BASE | OWN_IMAGES}, "batch_size: 32"),
        ({"base": BASE | OWN_IMAGES | {"skip_broken_images": True}}, "batch_size: 32"),
        ({"base": BASE | OWN_IMAGES, "grid": {"batch_size": [4, 32]}}, "batch_size: 32"),
        ({"grid": {"max_train_images": [60, 10]}}, "class 0 has 1 training images"),
        ({"base": BASE | {"weight_steps_per_arch_step": 1000}}, "weight_steps_per_arch_step: 1000"),
        ({"grid": {"latency_table": ["measure", "gone.json"]}}, "gone.json"),
        ({"grid": {"latency_table": ["measure", "spec.yaml"]}}, "it is not JSON"),
        ({"grid": {"sampling": ["bi", "bi_random"]}}, "are the same search"),
        ({"grid": {"target_latency_ms": ["50%", "50.0 %"]}}, "are the same search"),
    ],
)
def test_what_yaml_and_files_tell_is_refused_before_a_table_is_measured(
    tmp_path: Path, measuring: Measuring, sections: dict[str, Any], expected: str
) -> None:
    write_images(tmp_path, 24)
    grid = load_grid(write_spec(tmp_path, **sections))
    with pytest.raises(UserError) as caught:
        launch(grid, tmp_path / "out", make_console())
    assert expected in str(caught.value)
    assert measuring.configs == []


def test_a_tracking_store_that_cannot_be_used_is_refused_before_a_table_is_measured(
    tmp_path: Path, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = load_grid(write_spec(tmp_path))
    tracker = Tracker("tested", tmp_path / "out")
    tracker._client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="'tested' was deleted"):
        launch(grid, tmp_path / "out", make_console())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        launch(grid, tmp_path / "other", make_console())
    assert measuring.configs == []


def study_of(**changes: Any) -> dict[str, Any]:
    study = {
        "space": {"weight_lr": {"low": 0.01, "high": 0.1}},
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "budget": {"num_trials": 2},
    }
    return {"grid": None, "study": study | changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"storage": "postgresql://nobody@127.0.0.1:9/none"}, "study.storage: cannot use it"),
        ({"space": {"batch_size": {"choices": [8, 60]}}}, "batch_size: 60"),
    ],
)
def test_a_study_is_checked_before_a_table_is_measured(
    tmp_path: Path, measuring: Measuring, changes: dict[str, Any], expected: str
) -> None:
    grid = load_grid(write_spec(tmp_path, **study_of(**changes)))
    assert isinstance(grid, StudyGrid)
    with pytest.raises(UserError) as caught:
        launch_study(grid, tmp_path / "out", make_console())
    assert expected in str(caught.value)
    assert measuring.configs == []


def test_a_plan_has_all_cells_in_order_and_names_each_missing_table_once(
    tmp_path: Path, measuring: Measuring
) -> None:
    table_of("nano", 0.0).save(tmp_path / "table.json")
    tables = [("measure", None), ("table.json", None), ("measure", 32)]
    cells = [{"latency_table": table, "latency_batch_size": size} for table, size in tables]
    grid = load_grid(write_spec(tmp_path, cells=cells))
    with grid.place(None) as place:
        plan = grid.plan(tmp_path / "out", tmp_path / "scratch", place, print)
        assert [cell.config.latency_batch_size for cell in plan.cells] == [None, None, None, None, 32, 32]
        assert list(plan.measured) == list(plan.cells[2:4])
        assert len(plan.tables) == 2
        assert measuring.configs == []
        assert [path.name for path in tmp_path.iterdir()] == ["table.json", "spec.yaml"]
        cells_then = grid.cells(tmp_path / "out", place, print)
    assert list(cells_then[2:4]) == list(plan.measured)
    assert [config.latency_batch_size for config in measuring.configs] == [None, 32]


def dry_run(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    shown = StringIO()
    console = Console(file=shown, width=300)
    grid = load_grid(write_spec(folder))
    planned = print_dry_run(grid, folder / "out", console, retry_failed=False, **options)
    return shown.getvalue(), planned


def test_a_dry_run_measures_and_writes_nothing_unless_it_is_asked_to(
    tmp_path: Path, measuring: Measuring
) -> None:
    said, planned = dry_run(tmp_path)
    assert measuring.configs == []
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    assert [said.count(f"s{seed}-bi_random-sink-T50%") for seed in (0, 1)] == [1, 1]
    assert said.count("Not measured yet: the lookup table of space 'nano' on ") == 1
    assert "estimated" not in said
    # What can be foreseen needs no measurement.
    assert "warning: 2 of 2 searches: the temperature will be 5" in said
    assert len(planned["cells"]) == 2
    said, _ = dry_run(tmp_path, measure=True)
    assert len(measuring.configs) == 1
    assert "2 of 2 searches to run, " in said
    assert "estimated by timing a few steps" in said
    assert len(list((tmp_path / "out").glob("latency-table-nano-*.json"))) == 1
    said, _ = dry_run(tmp_path)
    assert "Not measured yet" not in said
    assert said.count("50% of") == 2


def test_a_dry_run_that_writes_keeps_out_of_the_folder_of_a_running_launch(
    tmp_path: Path, measuring: Measuring
) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        dry_run(tmp_path)
        with pytest.raises(UserError, match="another launch is running"):
            dry_run(tmp_path, measure=True)
    assert measuring.configs == []
