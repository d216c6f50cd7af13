"""One Ray trial: one whole search or training."""

import platform
import traceback
from typing import Any

from ray import tune

from experiments.cell import Input
from experiments.cell_folder import CellFolder
from experiments.cell_run import describe_failure, run_cell
from experiments.storage import Storage, Workplace
from nas.config import SearchConfig, TrainConfig
from nas.errors import UserError
from nas.identity import code_version

_CONFIGS: dict[str, type[SearchConfig | TrainConfig]] = {"search": SearchConfig, "train": TrainConfig}


def run_trial(params: dict[str, Any], inputs: dict[str, Input]) -> None:
    """Runs, or continues, a cell and reports every epoch.

    A cell that fails ends its own trial and reports why: only a process that dies is Ray's to
    start again.

    Args:
        inputs: lookup tables and architectures by their names.
    """
    cell = params["cell"]
    try:
        with Storage(cell["storage"]).cell(cell["name"]).workplace() as workplace:
            _run_in(workplace, cell, inputs[cell["input"]])
    except Exception as error:
        tune.report({"failure": describe_failure(error)})


def _run_in(workplace: Workplace, cell: dict[str, Any], given: Input) -> None:
    folder = CellFolder(workplace.folder)
    try:
        _check_code(cell["kind"], cell["code"])
        for record in run_cell(_CONFIGS[cell["kind"]](**cell["config"]), given, folder):
            workplace.save_checkpoints()
            tune.report({"epoch": record.epoch, "metrics": record.metrics})
        workplace.save_results()
    except Exception:
        folder.traceback.write_text(traceback.format_exc(), encoding="utf-8")
        workplace.save_results()
        raise


def _check_code(kind: str, expected: str) -> None:
    """The launch said which code gives the result; a node may have been installed at another time."""
    if code_version(f"{kind}.py") != expected:
        raise UserError(
            f"node {platform.node()} has other code than the launch (tfnas or torch differ in version); "
            "install the same on all nodes"
        )
