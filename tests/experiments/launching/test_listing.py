"""Image files are listed once per launch, and trials receive the listing."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import CellFolder
from experiments.cells.training_cell import TrainingCell
from experiments.launching.dry_run import print_dry_run
from experiments.launching.grid_launch import Work, launch
from experiments.launching.status import print_status
from experiments.places.place import num_cores
from experiments.specs.grid_file import load_grid
from nas.data import image_lists
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

BASE = {
    "space": "micro",
    "latency_table": "table.json",
    "target_latency_ms": "50%",
    "dataset": "image_list",
    "data_dir": "images",
    "train_list": "train.txt",
    "num_epochs": 2,
    "num_warmup_epochs": 1,
    "weight_steps_per_arch_step": 1,
    "batch_size": 2,
}
NUM_IMAGES = 20


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    lines = [f"{number}.png {number % 2}" for number in range(NUM_IMAGES)]
    for number in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "train.txt").write_text("\n".join(lines))
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    return tmp_path


def write_spec(folder: Path, **sections: Any) -> Path:
    content = {"experiment": "tested", "base": BASE, "grid": {"seed": [0, 1]}} | sections
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def num_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each list was read in this process."""
    counts: Counter[str] = Counter()
    original = image_lists.read_text

    def read_text(path: Path, what: str) -> str:
        counts[path.name] += 1
        return original(path, what)

    monkeypatch.setattr(image_lists, "read_text", read_text)
    return counts


def test_trials_use_the_listing_of_the_launch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, num_read: Counter[str]
) -> None:
    """The list is gone once the cells are known: a trial that read it would fail."""
    prepare = Work.prepare

    def prepare_and_remove(work: Work, cell: Cell) -> CellFolder:
        (folder / "train.txt").unlink(missing_ok=True)
        return prepare(work, cell)

    monkeypatch.setattr(Work, "prepare", prepare_and_remove)
    resources = {"cpus_per_trial": min(num_cores(), 2), "max_concurrent_trials": 1}
    result = launch(load_grid(write_spec(folder, resources=resources)), folder / "out", Console(quiet=True))
    assert len(result.finished) == 2, result
    assert num_read == {"train.txt": 1}
    stored = [path for path in (folder / "out").rglob("*") if path.is_file() and path.suffix != ".pt"]
    # Checkpoints and what Ray saves name the listing by its key.
    assert not [path for path in stored if b"19.png" in path.read_bytes()]


@pytest.mark.parametrize("show", [print_dry_run, print_status])
def test_a_dry_run_and_a_status_list_once_for_all_cells(
    folder: Path, show: Any, num_read: Counter[str]
) -> None:
    grid = load_grid(write_spec(folder, grid={"seed": [0, 1], "arch_fraction": [0.2, 0.3]}))
    options = {"retry_failed": False} if show is print_dry_run else {}
    show(grid, folder / "out", Console(quiet=True), **options)
    assert num_read == {"train.txt": 1}


def test_a_grid_of_trainings_lists_once(folder: Path, num_read: Counter[str]) -> None:
    fields = {name: BASE[name] for name in ("dataset", "data_dir", "train_list", "batch_size")}
    base = fields | {"test_list": "test.txt", "num_epochs": 2, "num_warmup_epochs": 0}
    lines = (folder / "train.txt").read_text().splitlines()
    (folder / "train.txt").write_text("\n".join(lines[2:]))
    (folder / "test.txt").write_text("\n".join(lines[:2]))
    path = write_spec(folder, base=base, architectures=["tf-nas-a", "mobilenet_v2"])
    grid = load_grid(path)
    with grid.place(None) as place:
        cells = grid.cells(folder / "out", place, print)
    assert len(cells) == 4
    assert all(isinstance(cell, TrainingCell) for cell in cells)
    assert num_read == {"train.txt": 1, "test.txt": 1}


def test_cells_that_differ_in_nothing_that_is_listed_share_a_listing(folder: Path) -> None:
    grid = load_grid(write_spec(folder, grid={"seed": [0, 1], "max_train_images": [10, 12]}))
    with grid.place(None) as place:
        cells = grid.cells(folder / "out", place, print)
    assert len({cell.listing_key for cell in cells}) == len({id(cell.listing) for cell in cells}) == 1
    assert len(cells[0].listing["train"]) == NUM_IMAGES


@pytest.mark.parametrize(
    ("fields", "num_cpus", "num_workers"),
    [({}, 1, 0), ({}, 2, 1), ({"num_threads": 2}, 2, 0), ({"num_data_workers": 5}, 1, 5)],
)
def test_workers_follow_the_cores_of_a_trial_unless_they_are_set(
    folder: Path, fields: dict[str, Any], num_cpus: int, num_workers: int
) -> None:
    path = write_spec(folder, base=BASE | fields, resources={"cpus_per_trial": num_cpus})
    drafts = load_grid(path).drafts
    assert {draft.config.num_data_workers for draft in drafts} == {num_workers}


def test_images_in_memory_have_no_workers(folder: Path) -> None:
    base = {name: BASE[name] for name in ("space", "latency_table", "target_latency_ms")}
    drafts = load_grid(write_spec(folder, base=base, resources={"cpus_per_trial": 2})).drafts
    assert {draft.config.num_data_workers for draft in drafts} == {None}
