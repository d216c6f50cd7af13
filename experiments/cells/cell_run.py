"""Running a cell in its folder: epochs as they come, and at the end its artifacts."""

import csv
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from experiments.cells.cell import Input
from experiments.cells.cell_folder import CellFolder
from nas.config import SearchConfig, TrainConfig
from nas.foundation.world import ALONE, World
from nas.latency.table import LatencyTable
from nas.search.records import EpochRecord, Trajectory
from nas.search.search import run_search
from nas.space.architecture import Architecture
from nas.space.baselines import ARCHITECTURE_NAMES
from nas.space.profile import count_macs, count_parameters
from nas.training.processes import lead
from nas.training.trained_network import load_trained_network
from nas.training.training import BEST_FILE, TrainRecord, run_training


def run_cell(
    config: SearchConfig | TrainConfig,
    given: Input,
    folder: CellFolder,
    *,
    warmups_dir: Path | None = None,
    world: World = ALONE,
) -> Iterator[EpochRecord | TrainRecord]:
    """Runs, or continues, a search or a training; yields every epoch, those done before included.

    Args:
        given: the lookup table of a search; the architecture of a training.
        warmups_dir: where searches share warm-ups, if they do.
        world: processes that train together; this is the first of them.

    Raises:
        UserError, DivergedError: see `run_search` and `run_training`.
    """
    folder.artifacts.mkdir(exist_ok=True)
    if isinstance(config, SearchConfig):
        assert isinstance(given, LatencyTable)
        kernels = yield from _search(config, given, folder, warmups_dir)
        # What computed it, in place of `auto`.
        config = config.model_copy(update={"kernels": kernels or config.kernels})
    else:
        assert not isinstance(given, LatencyTable)
        yield from _train(with_own_file(config, given, folder.artifacts), folder, world)
    fields = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    (folder.artifacts / "config.yaml").write_text(fields, encoding="utf-8")


def describe_failure(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def with_own_file(config: TrainConfig, architecture: Architecture | None, folder: Path) -> TrainConfig:
    """The same training, its network in a file of this folder: its own may be another machine's."""
    if architecture is None:
        return config
    path = folder / "architecture.json"
    architecture.save(path)
    if config.architecture in ARCHITECTURE_NAMES:
        return config
    return config.model_copy(update={"architecture": str(path)})


def _search(
    config: SearchConfig, table: LatencyTable, folder: CellFolder, warmups_dir: Path | None
) -> Generator[EpochRecord, None, str | None]:
    """Runs a search and writes its artifacts; returns its kernels."""
    records: list[EpochRecord] = []
    for record in run_search(config, table=table, checkpoint_dir=folder.checkpoints, warmups_dir=warmups_dir):
        records.append(record)
        yield record
    Trajectory.of(config.space, config.depth, records).save(folder.artifacts / "trajectory.npz")
    _write_metrics(records, folder.artifacts / "metrics.csv")
    records[-1].architecture.save(folder.artifacts / "architecture.json")
    table.save(folder.artifacts / "latency_table.json")
    return records[-1].kernels


def _train(config: TrainConfig, folder: CellFolder, world: World) -> Iterator[TrainRecord]:
    lead(config, world)
    records = run_training(
        config, checkpoint_dir=folder.checkpoints, networks_dir=folder.artifacts, world=world
    )
    for record in records:
        if record.epoch == config.num_epochs:
            yield replace(record, metrics=record.metrics | _measure_size(folder.artifacts / BEST_FILE))
        else:
            yield record


def _measure_size(path: Path) -> dict[str, float]:
    """What a trained network costs, whatever it runs on."""
    record, network = load_trained_network(path)
    return {
        "num_parameters": float(count_parameters(network)),
        "num_macs": float(count_macs(network, record.resolution)),
        "size_bytes": float(path.stat().st_size),
    }


def _write_metrics(records: list[EpochRecord], path: Path) -> None:
    """All epochs' metrics in one file: MLflow hands them out one run and one metric at a time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        names = dict.fromkeys(name for record in records for name in record.metrics)
        writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": record.epoch, **record.metrics} for record in records)
