"""One training as a run in MLflow: found again by what determines it, continued after a crash."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.cells.cell import TrainingCell
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.cell_run import describe_failure, run_cell
from experiments.console import format_duration
from experiments.tracking.delivery import Delivery
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import DivergedError, UserError
from nas.foundation.world import ALONE, World
from nas.search.records import EpochRecord
from nas.training.training import TrainRecord

_PATIENCE_S = 60.0
"""How long a training that is done waits for a tracking store that is away."""


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
    cell: TrainingCell, experiment: str, out: Path, report: Callable[[str], None], world: World = ALONE
) -> TrainingResult:
    """Runs a training in this process, or continues it, unless it is done already.

    Of several processes the first calls it; the others train along, see `nas.training.processes`.

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
        folder.describe(RunDescription.of(cell))
        delivery = Delivery(tracker, report)
        try:
            if not _is_finished(folder):
                _run(cell, folder, delivery, report, world)
        finally:
            delivery.notify(folder)
            if delivery.close(_PATIENCE_S):
                report(f"MLflow is still away: the records wait in {folder.path}; run it again")
    epochs, end = folder.journal.epochs, folder.journal.end
    metrics = epochs[max(epochs)].metrics if epochs else {}
    return TrainingResult(metrics, folder, tracker.uri, end.reason if end else None)


def _is_finished(folder: CellFolder) -> bool:
    if folder.journal.events and folder.journal.end is None:
        # A process that was killed could not end it.
        folder.journal.finish("KILLED")
    end = folder.journal.end
    return end is not None and end.outcome == "FINISHED"


def _run(
    cell: TrainingCell,
    folder: CellFolder,
    delivery: Delivery,
    report: Callable[[str], None],
    world: World,
) -> None:
    if folder.journal.epochs:
        report(f"{cell.name}: continues after epoch {max(folder.journal.epochs)}")
    folder.journal.start(None)
    delivery.notify(folder)
    try:
        with world.failing_together():
            for record in run_cell(cell.config, cell.load_input(), folder, world=world):
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


def _describe_epoch(cell: TrainingCell, record: EpochRecord | TrainRecord) -> str:
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
