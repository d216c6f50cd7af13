"""One Ray trial: one whole search or training."""

import platform
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ray import tune

from experiments.cells.cell import Cell, Input
from experiments.cells.cell_folder import CellFolder
from experiments.cells.cell_kinds import CELLS
from experiments.cells.journal import describe_failure
from experiments.places.storage import CellStorage, Storage
from nas.data.image_lists import Listing
from nas.foundation.errors import RunWarning, UserError
from nas.foundation.uris import redact
from nas.search.health import checks_to_json
from nas.search.records import EpochRecord


def run_trial(params: dict[str, Any], inputs: dict[str, Input], listings: dict[str, Listing]) -> None:
    """Runs or resumes a cell and reports every epoch, then the health of a search.

    A cell that fails reports why and ends its trial: Ray restarts only processes that die.

    Args:
        inputs: lookup tables and architectures, by their names.
        listings: image files, by what determines them; a trial lists files that are not there.
    """
    cell = params["cell"]
    try:
        storage = Storage(cell["storage"])
        warmups_dir = storage.warmups_dir if cell["share_warmup"] else None
        files = storage.cell(cell["name"])
        with files.workplace() as workplace, _warnings_reported():
            listing = listings.get(cell["listing"])
            _run_in(CellFolder(workplace), files, cell, inputs[cell["input"]], listing, warmups_dir)
    except Exception as error:
        tune.report({"failure": describe_failure(error)})


def _run_in(
    folder: CellFolder,
    files: CellStorage,
    cell: dict[str, Any],
    given: Input,
    listing: Listing | None,
    warmups_dir: Path | None,
) -> None:
    try:
        kind = CELLS[cell["kind"]]
        _check_version(kind, cell["results_version"])
        config = kind.config_type(**cell["config"])
        for record in kind.run(config, given, folder, listing=listing, warmups_dir=warmups_dir):
            files.save_checkpoints(folder.path)
            is_shared = isinstance(record, EpochRecord) and record.is_shared
            tune.report({"epoch": record.epoch, "metrics": record.metrics, "is_shared": is_shared})
        files.save_results(folder.path)
        if checks := folder.health:
            tune.report({"health": checks_to_json(checks)})
    except Exception:
        folder.traceback.write_text(redact(traceback.format_exc()), encoding="utf-8")
        files.save_results(folder.path)
        raise


def _check_version(kind: type[Cell], expected: int) -> None:
    """Nodes may have been installed at different times; only results of one version compare."""
    if kind.results_version != expected:
        raise UserError(
            f"node {platform.node()} computes results version {kind.results_version} of a {kind.noun}, the "
            f"launch {expected}; install the same tfnas on all nodes"
        )


@contextmanager
def _warnings_reported() -> Iterator[None]:
    """Reports warnings about the run to the launch; other warnings stay in the log of the worker."""

    def report(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, RunWarning):
            tune.report({"warning": str(message)})
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.simplefilter("always", RunWarning)
        warnings.showwarning = report
        yield
