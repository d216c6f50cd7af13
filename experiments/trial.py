"""One Ray trial: one whole search."""

import csv
import shutil
import traceback
from pathlib import Path
from typing import Any

import yaml
from ray import tune

from experiments.cell_folder import CellFolder
from nas.config import SearchConfig
from nas.records import METRIC_NAMES, EpochRecord, Trajectory
from nas.search import run_search


def run_trial(params: dict[str, Any]) -> None:
    """Runs, or continues, the search of a cell's folder and reports every epoch.

    A search that fails ends its own trial and reports why: only a process that dies is Ray's to
    start again.
    """
    folder = CellFolder(Path(params["search"]["folder"]))
    try:
        _search(SearchConfig(**params["search"]["config"]), folder)
    except Exception as error:
        folder.traceback.write_text(traceback.format_exc(), encoding="utf-8")
        tune.report({"failure": _describe(error)})


def _search(config: SearchConfig, folder: CellFolder) -> None:
    records: list[EpochRecord] = []
    for record in run_search(config, checkpoint_dir=folder.checkpoints):
        records.append(record)
        tune.report({"epoch": record.epoch, "metrics": record.metrics})
    _write_artifacts(config, records, folder.artifacts)


def _write_artifacts(config: SearchConfig, records: list[EpochRecord], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    Trajectory.of(config.space, config.depth, records).save(folder / "trajectory.npz")
    _write_metrics(records, folder / "metrics.csv")
    records[-1].architecture.save(folder / "architecture.json")
    shutil.copyfile(config.latency_table, folder / "latency_table.json")
    fields = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    (folder / "config.yaml").write_text(fields, encoding="utf-8")


def _write_metrics(records: list[EpochRecord], path: Path) -> None:
    """All epochs' metrics in one file: MLflow hands them out one run and one metric at a time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *METRIC_NAMES], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": record.epoch, **record.metrics} for record in records)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
