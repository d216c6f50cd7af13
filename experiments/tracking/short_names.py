"""Runs as people name them: by name, by id, or by the first digits of an id, with `run:` before it or not."""

import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from experiments.tracking.sqlite_runs import ShortRun, list_sqlite_runs
from experiments.tracking.store_access import open_store, reaching, search_runs, tracking_uri
from nas.foundation.errors import UserError
from nas.foundation.uris import sqlite_path
from nas.space.network_names import ARCHITECTURE_NAMES, BASELINE_NAMES

RUN_PREFIX = "run:"
EXPERIMENT_PREFIX = "experiment:"
SPACE_PREFIX = "space:"

_FILE_SUFFIXES = (".json", ".config", ".yaml", ".yml", ".pt", ".onnx")
_DIGITS = re.compile("[0-9a-f]{1,32}")
_NUM_SHOWN = 5
_NUM_DIGITS_SHOWN = 8


def find_run_id(reference: str, out: Path) -> str:
    """The id of the one run that a reference names, on the tracking server or in the store of a folder.

    Args:
        reference: `run:` and a name, an id or the first digits of one.

    Raises:
        UserError: there is none, which offers near names; or several, which lists them.
    """
    runs = list_runs(out)
    found = runs_like(reference, runs)
    if len(found) == 1:
        return found[0].run_id
    if found:
        shown = ", ".join(map(_describe, found[:_NUM_SHOWN]))
        more = f" and {len(found) - _NUM_SHOWN} more" if len(found) > _NUM_SHOWN else ""
        raise UserError(f"{reference}: {len(found)} runs: {shown}{more}; give more digits of an id")
    raise _unknown(reference, runs, tracking_uri(out))


def as_run(reference: str, out: Path) -> str:
    """The reference, with `run:` before it if only a run of a folder's store can be meant.

    Raises:
        UserError: it is not a run, a network or a file, but near the name of a run.
    """
    if _is_prefixed(reference) or _means_network(reference):
        return reference
    runs = _runs_of_store(out)
    if runs_like(reference, runs):
        return f"{RUN_PREFIX}{reference}"
    if _near(reference, runs):
        raise _unknown(reference, runs, tracking_uri(out))
    return reference


def find_folder(references: Iterable[str], default: Path) -> Path:
    """The output folder of the runs that are named: the default one, or one beside it with the first of them.

    With a tracking server, the default one: it knows no folders.

    Args:
        references: runs and networks, as commands take them.

    Raises:
        UserError: several folders have the run, or all of them lack it.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return default
    beside = sorted(path.parent for path in default.parent.glob("*/mlflow.db"))
    runs = {folder: _runs_in(folder) for folder in dict.fromkeys((default, Path(), *beside))}
    for reference in references:
        if _means_network(reference) or reference.startswith(SPACE_PREFIX):
            continue
        found = [folder for folder in runs if _has(runs[folder], reference)]
        if default in found or len(found) == 1:
            return default if default in found else found[0]
        if found:
            folders = ", ".join(map(str, found))
            raise UserError(f"{reference}: is in several folders: {folders}; choose one with --out")
        known = [run for folder in runs.values() for run in folder]
        if _near(reference, known) or (_is_prefixed(reference) and known):
            raise _unknown(reference, known, ", ".join(str(folder) for folder in runs if runs[folder]))
    return default


def list_runs(out: Path) -> list[ShortRun]:
    """The runs that people name, newest first: of an SQLite file, without MLflow.

    Raises:
        UserError: the store cannot be read.
    """
    uri = tracking_uri(out)
    database = sqlite_path(uri)
    if database is not None:
        try:
            return list_sqlite_runs(database)
        except sqlite3.Error:
            # MLflow knows more versions of its tables, and reasons why a file is none.
            pass
    client = open_store(uri)
    with reaching(uri):
        return [
            ShortRun(run.info.run_id, run.info.run_name or "", run.info.status, experiment.name)
            for experiment in client.search_experiments()
            for run in search_runs(client, experiment.experiment_id, "")
            if run.data.tags.get("tfnas.kind") != "launch"
        ]


def runs_like(reference: str, runs: Sequence[ShortRun]) -> list[ShortRun]:
    """The runs of this name; or else those whose id begins so."""
    text = _text(reference)
    if named := [run for run in runs if run.name == text]:
        return named
    return [run for run in runs if _DIGITS.fullmatch(text) and run.run_id.startswith(text)]


def _means_network(reference: str) -> bool:
    """Whether a reference is the name of a network, or of a file that is there or would be one."""
    is_name = reference in (*ARCHITECTURE_NAMES, *BASELINE_NAMES)
    return is_name or "/" in reference or reference.endswith(_FILE_SUFFIXES) or os.path.lexists(reference)


def _is_prefixed(reference: str) -> bool:
    """Whether a reference begins with `run:`, `experiment:` or `space:`."""
    return reference.startswith((RUN_PREFIX, EXPERIMENT_PREFIX, SPACE_PREFIX))


def _runs_of_store(out: Path) -> list[ShortRun]:
    """The runs of a folder's store, or of the tracking server; none if the folder has no store."""
    database = sqlite_path(tracking_uri(out))
    return list_runs(out) if database is None or database.is_file() else []


def _runs_in(folder: Path) -> list[ShortRun]:
    try:
        return list_runs(folder) if (folder / "mlflow.db").is_file() else []
    except UserError:
        # Of a folder that nobody named: it may be anything.
        return []


def _has(runs: Sequence[ShortRun], reference: str) -> bool:
    if reference.startswith(EXPERIMENT_PREFIX):
        return reference.removeprefix(EXPERIMENT_PREFIX) in {run.experiment for run in runs}
    return bool(runs_like(reference, runs))


def _near(reference: str, runs: Iterable[ShortRun]) -> list[str]:
    """Names of runs, or of experiments, that a reference may have meant."""
    if reference.startswith(EXPERIMENT_PREFIX):
        names = dict.fromkeys(run.experiment for run in runs)
    else:
        names = dict.fromkeys(run.name for run in runs)
    return get_close_matches(_text(reference), list(names), cutoff=0.5)


def _unknown(reference: str, runs: Sequence[ShortRun], where: str) -> UserError:
    near = _near(reference, runs)
    offered = f" (near names: {', '.join(near)})" if near else ""
    if reference.startswith(EXPERIMENT_PREFIX):
        kind, wrong = "experiment", "the name"
    else:
        kind = "run" if reference.startswith(RUN_PREFIX) else "file, network or run"
        wrong = "the id or the name"
    return UserError(
        f"{reference}: no such {kind} in {where}{offered}; correct {wrong}, or give the folder of its launch "
        "with --out"
    )


def _describe(run: ShortRun) -> str:
    return f"{run.run_id[:_NUM_DIGITS_SHOWN]} ({run.name}, {run.status} in '{run.experiment}')"


def _text(reference: str) -> str:
    return reference.removeprefix(RUN_PREFIX).removeprefix(EXPERIMENT_PREFIX)
