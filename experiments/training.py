"""One training as a run in MLflow: found again by what determines it, continued after a crash."""

import json
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from experiments import __version__
from experiments.cell_folder import CellFolder, RunDescription
from experiments.console import format_duration
from experiments.delivery import Delivery
from experiments.tracking import Tracker
from nas.architecture import Architecture
from nas.config import TrainConfig
from nas.errors import DivergedError, UserError
from nas.identity import code_version, fingerprint
from nas.train import NetworkChoice, TrainRecord, result_fields, run_training
from nas.training_data import fingerprint_training_data

_PATIENCE_S = 60.0
"""How long a training that is done waits for a tracking store that is away."""


@dataclass(frozen=True)
class TrainingCell:
    """One training.

    Attributes:
        name: for people, `train-efficientnet_b0-s0` for instance.
        config: `architecture` may be a file that was downloaded.
        architecture: what the person named, `run:RUN_ID` for instance.
        search_run: the MLflow run that found the network, if one did.
        factors: the fields in which cells of a grid differ.
    """

    name: str
    config: TrainConfig
    architecture: str
    search_run: str | None = None
    factors: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def data_fingerprint(self) -> str:
        """Of the training and the test images."""
        return fingerprint_training_data(self.config)

    @cached_property
    def hash(self) -> str:
        """Identifies the training: equal hashes mean equal results."""
        identity = {
            "config": result_fields(self.config),
            "data": self.data_fingerprint,
            "code": code_version("train.py"),
            "search run": self.search_run,
        }
        return fingerprint(identity)[:32]

    @property
    def folder_name(self) -> str:
        """A file name that is readable and unique."""
        return f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name)[:80]}-{self.hash[:10]}"

    def describe(self) -> RunDescription:
        """What the run is called and tagged with."""
        tags = {
            "tfnas.cell": self.hash,
            "tfnas.kind": "train",
            "tfnas.factors": json.dumps(list(self.factors)),
            "tfnas.data_fingerprint": self.data_fingerprint,
            "tfnas.code_version": code_version("train.py"),
            "tfnas.version": __version__,
        }
        if self.search_run is not None:
            tags["tfnas.search_run"] = self.search_run
        params = {name: str(value) for name, value in self.config.model_dump().items()}
        params |= {
            "architecture": self.architecture,
            "resolution": str(NetworkChoice.of(self.config).resolution),
        }
        factors = {f"factor.{name}": str(value) for name, value in self.factors.items()}
        return RunDescription(self.hash, self.name, params, tags | factors)


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        metrics: of the last epoch, with those on the test images.
        folder: where its networks are.
        failure: why it failed, in one line.
    """

    metrics: dict[str, float]
    folder: CellFolder
    tracking_uri: str
    failure: str | None = None


def train_here(
    cell: TrainingCell, experiment: str, out: Path, report: Callable[[str], None]
) -> TrainingResult:
    """Runs a training in this process, or continues it, unless it is done already.

    Args:
        experiment: name of the MLflow experiment.
        out: output folder; made if it is missing.
        report: is told each epoch.

    Raises:
        UserError: config, data or store are wrong, or another process runs this very training.
    """
    out = out.resolve()
    folder = CellFolder(out / "trainings" / cell.folder_name)
    with _only_user_of(folder):
        tracker = Tracker(experiment, out)
        folder.describe(cell.describe())
        delivery = Delivery(tracker, report)
        try:
            if not _is_finished(folder):
                _run(cell, folder, delivery, report)
        finally:
            delivery.notify(folder)
            if delivery.close(_PATIENCE_S):
                report(f"MLflow is still away: the records wait in {folder.path}; run it again")
    epochs, end = folder.journal.epochs, folder.journal.end
    metrics = epochs[max(epochs)].metrics if epochs else {}
    return TrainingResult(metrics, folder, tracker.uri, end.reason if end else None)


def train_into(config: TrainConfig, folder: CellFolder) -> Iterator[TrainRecord]:
    """Runs or continues a training in a folder; its networks and config become artifacts.

    Raises:
        UserError, DivergedError: see `run_training`.
    """
    yield from run_training(config, checkpoint_dir=folder.checkpoints, networks_dir=folder.artifacts)
    network = NetworkChoice.of(config).network
    if isinstance(network, Architecture):
        network.save(folder.artifacts / "architecture.json")
    fields = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    (folder.artifacts / "config.yaml").write_text(fields, encoding="utf-8")


def _is_finished(folder: CellFolder) -> bool:
    if folder.journal.events and folder.journal.end is None:
        # A process that was killed could not end it.
        folder.journal.finish("KILLED")
    end = folder.journal.end
    return end is not None and end.outcome == "FINISHED"


def _run(cell: TrainingCell, folder: CellFolder, delivery: Delivery, report: Callable[[str], None]) -> None:
    if folder.journal.epochs:
        report(f"{cell.name}: continues after epoch {max(folder.journal.epochs)}")
    folder.journal.start(None)
    delivery.notify(folder)
    try:
        for record in train_into(cell.config, folder):
            if record.epoch not in folder.journal.epochs:
                report(_describe_epoch(cell, record))
            folder.journal.add_epoch(record.epoch, record.metrics)
            delivery.notify(folder)
    except KeyboardInterrupt:
        folder.journal.finish("KILLED")
        raise
    except Exception as error:
        folder.traceback.write_text(traceback.format_exc(), encoding="utf-8")
        folder.journal.finish("FAILED", describe_failure(error))
        if not isinstance(error, DivergedError):
            raise
    else:
        folder.journal.finish("FINISHED")


def describe_failure(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def _describe_epoch(cell: TrainingCell, record: TrainRecord) -> str:
    metrics = record.metrics
    left_s = (cell.config.num_epochs - record.epoch) * metrics["epoch_seconds"]
    return (
        f"{cell.name}: epoch {record.epoch}/{cell.config.num_epochs}, loss {metrics['train_loss']:.3f}, "
        f"held-out accuracy {metrics['val_accuracy']:.4f} (best in epoch {metrics['best_epoch']:.0f}), "
        f"{format_duration(left_s)} left"
    )


@contextmanager
def _only_user_of(folder: CellFolder) -> Iterator[None]:
    lock = FileLock(folder.path / ".lock")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"--out: {folder.path}: this very training is running there; wait for it") from None
    except OSError as error:
        raise UserError(
            f"--out: {folder.path}: cannot write there: {error.strerror}; choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
