"""One Ray trial: one whole search."""

import csv
import platform
import traceback
from pathlib import Path
from typing import Any

import yaml
from ray import tune

from experiments.cell_folder import CellFolder
from experiments.storage import Storage, Workplace
from nas.config import SearchConfig
from nas.errors import UserError
from nas.identity import code_version
from nas.latency import LatencyTable
from nas.records import GPU_METRIC_NAMES, METRIC_NAMES, EpochRecord, Trajectory
from nas.search import run_search


def run_trial(params: dict[str, Any], tables: dict[str, LatencyTable]) -> None:
    """Runs, or continues, the search of a cell and reports every epoch.

    A search that fails ends its own trial and reports why: only a process that dies is Ray's to
    start again.

    Args:
        tables: lookup tables by their fingerprints.
    """
    search = params["search"]
    try:
        with Storage(search["storage"]).cell(search["name"]).workplace() as workplace:
            _search_in(workplace, search, tables)
    except Exception as error:
        tune.report({"failure": _describe(error)})


def _search_in(workplace: Workplace, search: dict[str, Any], tables: dict[str, LatencyTable]) -> None:
    try:
        _check_code(search["code"])
        _search(SearchConfig(**search["config"]), tables[search["table"]], workplace)
    except Exception:
        CellFolder(workplace.folder).traceback.write_text(traceback.format_exc(), encoding="utf-8")
        workplace.save_results()
        raise


def _check_code(expected: str) -> None:
    """The launch said which code gives the result; a node may have been installed at another time."""
    if code_version() != expected:
        raise UserError(
            f"node {platform.node()} has other code than the launch (tfnas or torch differ in version); "
            "install the same on all nodes"
        )


def _search(config: SearchConfig, table: LatencyTable, workplace: Workplace) -> None:
    folder = CellFolder(workplace.folder)
    records: list[EpochRecord] = []
    for record in run_search(config, table=table, checkpoint_dir=folder.checkpoints):
        workplace.save_checkpoints()
        records.append(record)
        tune.report({"epoch": record.epoch, "metrics": record.metrics})
    _write_artifacts(config, table, records, folder.artifacts)
    workplace.save_results()


def _write_artifacts(
    config: SearchConfig, table: LatencyTable, records: list[EpochRecord], folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    Trajectory.of(config.space, config.depth, records).save(folder / "trajectory.npz")
    _write_metrics(records, folder / "metrics.csv")
    records[-1].architecture.save(folder / "architecture.json")
    table.save(folder / "latency_table.json")
    fields = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    (folder / "config.yaml").write_text(fields, encoding="utf-8")


def _write_metrics(records: list[EpochRecord], path: Path) -> None:
    """All epochs' metrics in one file: MLflow hands them out one run and one metric at a time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        of_gpu = [name for name in GPU_METRIC_NAMES if name in records[-1].metrics]
        writer = csv.DictWriter(file, ["epoch", *METRIC_NAMES, *of_gpu], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": record.epoch, **record.metrics} for record in records)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
