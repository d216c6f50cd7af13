"""The searches that the grid benchmarks run, on the bundled images and with a synthetic table."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from experiments.cells.search_cell import SearchCell
from nas.config import SearchConfig
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

NUM_PARALLEL = 2
"""Searches at a time."""


class Searches:
    """Searches that differ only in their seed, as configs and as a YAML file.

    Args:
        folder: holds the lookup table, the YAML files and the outputs.
    """

    def __init__(self, folder: Path, space: str, max_train_images: int) -> None:
        self.folder = folder
        self._table_path = folder / f"{space}.json"
        self._table: LatencyTable = make_dense_table(get_space(space))
        self._table.save(self._table_path)
        low_ms, high_ms = reachable_interval_ms(self._table)
        self._fields: dict[str, Any] = {
            "space": space,
            "max_train_images": max_train_images,
            "augmentation": "crop_flip",
            "target_latency_ms": (low_ms + high_ms) / 2,
            "latency_table": str(self._table_path),
            "num_epochs": 2,
            "num_warmup_epochs": 1,
        }

    def fields(self, seed: int, num_threads: int = 1) -> dict[str, Any]:
        """The config for a seed."""
        return self._fields | {"seed": seed, "num_threads": num_threads}

    def choose_num_epochs(self, trial_s: float) -> None:
        """Gives each as many epochs as take about so many seconds."""
        joint_s = SearchCell.time_epochs(SearchConfig(**self.fields(0)), self._table, {}).seconds["joint"]
        self._fields["num_epochs"] = max(round(trial_s / joint_s), 2)

    @property
    def num_epochs(self) -> int:
        """Epochs of each search."""
        return int(self._fields["num_epochs"])

    def write_grid(self, num_trials: int) -> Path:
        """Writes a grid with `num_trials` seeds as a YAML file."""
        path = self.folder / f"{num_trials}-trials.yaml"
        content = {
            "experiment": "bench",
            "base": self._fields,
            "grid": {"seed": list(range(num_trials))},
            "resources": {"max_concurrent_trials": NUM_PARALLEL},
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def make_out(self) -> Path:
        """Creates a new output folder, because MLflow stays connected to the stores of earlier ones."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s
