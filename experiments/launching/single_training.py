"""One training in this process, as a run in MLflow; it resumes after a crash."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.cells.cell import Record
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.journal import describe_failure
from experiments.cells.training_cell import TrainingCell
from experiments.console import format_duration
from experiments.launching.launch_lock import only_user_of
from experiments.tracking.delivery import Delivery
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import DivergedError
from nas.foundation.uris import redact
from nas.foundation.world import ALONE, World

_PATIENCE_S = 60.0
"""How long a finished training waits for an unreachable tracking server."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        metrics: of the last epoch, including those on the test images.
        folder: holds its networks.
        failure: why it failed, in one line; None if it did not.
    """

    metrics: dict[str, float]
    folder: CellFolder
    tracking_uri: str
    failure: str | None = None


def train_here(
    cell: TrainingCell, experiment: str, out: Path, report: Callable[[str], None], world: World = ALONE
) -> TrainingResult:
    """Runs or resumes a training in this process, unless it is finished.

    The first of several processes calls it; the others follow, see `nas.training.processes`.

    Args:
        experiment: name of the MLflow experiment.
        out: output folder; created if it is missing.
        report: receives a line per epoch.

    Raises:
        UserError: config, data or tracking server are wrong, or another process runs this training.
    """
    out = out.resolve()
    folder = CellFolder.below(out / "trainings", cell)
    with only_user_of(folder.path, "this training"):
        tracker = Tracker(experiment, out)
        cell = folder.with_earlier_name(cell)
        folder.describe(RunDescription.of(cell, experiment))
        if folder.journal.is_open:
            # A killed process could not end it.
            folder.journal.finish("KILLED")
        delivery = Delivery(tracker, report)
        try:
            if not folder.journal.is_finished:
                _run(cell, folder, delivery, report, world)
        finally:
            delivery.notify(folder)
            if delivery.close(_PATIENCE_S):
                report(f"MLflow is still unreachable; the records are kept: rerun to deliver {folder.path}")
    epochs, end = folder.journal.epochs, folder.journal.end
    metrics = epochs[max(epochs)].metrics if epochs else {}
    return TrainingResult(metrics, folder, tracker.uri, end.reason if end else None)


def _run(
    cell: TrainingCell,
    folder: CellFolder,
    delivery: Delivery,
    report: Callable[[str], None],
    world: World,
) -> None:
    if folder.journal.epochs:
        report(f"{cell.name}: resumes after epoch {max(folder.journal.epochs)}")
    folder.journal.start(None)
    delivery.notify(folder)
    try:
        with world.failing_together():
            for record in cell.run(cell.config, cell.load_input(), folder, listing=cell.listing, world=world):
                if record.epoch not in folder.journal.epochs:
                    report(_describe_epoch(cell, record))
                folder.journal.add_epoch(record.epoch, record.metrics)
                delivery.notify(folder)
    except KeyboardInterrupt:
        folder.journal.finish("KILLED")
        raise
    except Exception as error:
        folder.traceback.write_text(redact(traceback.format_exc()), encoding="utf-8")
        folder.journal.finish("FAILED", describe_failure(error))
        if not isinstance(error, DivergedError):
            raise
    else:
        folder.journal.finish("FINISHED")


def _describe_epoch(cell: TrainingCell, record: Record) -> str:
    metrics = record.metrics
    left_s = (cell.config.num_epochs - record.epoch) * metrics["epoch_seconds"]
    return (
        f"{cell.name}: epoch {record.epoch}/{cell.config.num_epochs}, loss {metrics['train_loss']:.3f}, "
        f"held-out accuracy {metrics['val_accuracy']:.4f} (best in epoch {metrics['best_epoch']:.0f}), "
        f"{format_duration(left_s)} left"
    )
