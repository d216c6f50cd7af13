"""A launch compares its lookup tables with the machine, once, before its first trial."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from experiments.cells.search_cell import SearchCell
from experiments.launching import grid_launch
from experiments.launching.table_check import check_tables
from experiments.specs.grid_file import load_grid
from experiments.specs.study_grid import StudyGrid
from experiments.studies import study_launch
from nas.latency.quiet import LoadMeter, OtherLoad
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import device_name
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

THIS_CPU = Provenance(
    source="measured",
    device_type="cpu",
    device_name=device_name(torch.device("cpu")),
    num_threads=1,
    batch_size=1,
    num_classes=10,
)


def table_of_this_machine(base_ms: float) -> LatencyTable:
    table = make_dense_table(get_space("nano"), base_ms=base_ms)
    return table.model_copy(update={"provenance": THIS_CPU})


def write_spec(folder: Path, tables: dict[str, LatencyTable], **sections: Any) -> Path:
    """A file with searches that have these tables."""
    for name, table in tables.items():
        table.save(folder / name)
    base = {"space": "nano", "target_latency_ms": "50%", "max_train_images": 60, "batch_size": 8}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"experiment": "tested", "base": base, **sections}))
    return path


def lines_of(folder: Path, tables: dict[str, LatencyTable]) -> list[str]:
    """What is said of searches with these tables, two with each."""
    grid = load_grid(write_spec(folder, tables, grid={"seed": [0, 1], "latency_table": list(tables)}))
    said: list[str] = []
    with grid.place(None) as place:
        cells = grid.cells(folder / "out", place, print)
        assert all(isinstance(cell, SearchCell) for cell in cells)
        check_tables(cells, place, said.append)
    return said


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> list[OtherLoad]:
    """What other processes use, whatever runs beside the tests."""
    read = [OtherLoad(0.0, 2)]
    monkeypatch.setattr(LoadMeter, "load", lambda meter: read[0])
    return read


def test_each_table_that_does_not_hold_is_warned_of_once(tmp_path: Path, load: list[OtherLoad]) -> None:
    """No network of `nano` takes a minute; a table that stands for another device may say so."""
    tables = {
        "wrong.json": table_of_this_machine(base_ms=60_000.0),
        "other.json": make_dense_table(get_space("nano"), base_ms=60_000.0),
    }
    (line,) = lines_of(tmp_path, tables)
    assert line.startswith(
        f"warning: {tmp_path / 'wrong.json'}: 3 networks of 'nano' now take 100 % less than"
    )


def test_on_a_busy_machine_a_table_is_not_compared_and_the_launch_says_so(
    tmp_path: Path, load: list[OtherLoad]
) -> None:
    load[0] = OtherLoad(0.9, 2)
    (line,) = lines_of(tmp_path, {"wrong.json": table_of_this_machine(base_ms=60_000.0)})
    assert line == f"{tmp_path / 'wrong.json'}: not compared with networks measured now: {load[0]}"


class FirstTrialError(Exception):
    """A launch came so far."""


@pytest.mark.parametrize("is_study", [False, True])
def test_a_launch_compares_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: list[OtherLoad], is_study: bool
) -> None:
    def start(*_: Any) -> None:
        raise FirstTrialError

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(grid_launch, "_run", start)
    monkeypatch.setattr(study_launch, "_run", start)
    study = {
        "space": {"weight_lr": {"low": 0.01, "high": 0.1}, "latency_table": {"choices": ["table.json"]}},
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "budget": {"num_trials": 2},
    }
    sections = {"study": study} if is_study else {"grid": {"latency_table": ["table.json"]}}
    grid = load_grid(write_spec(tmp_path, {"table.json": table_of_this_machine(60_000.0)}, **sections))
    shown = StringIO()
    console, out = Console(file=shown, width=300), tmp_path / "out"
    launch: Any = study_launch.launch_study if isinstance(grid, StudyGrid) else grid_launch.launch
    with pytest.raises(FirstTrialError):
        launch(grid, out, console)
    assert shown.getvalue().count("than the table says") == 1
