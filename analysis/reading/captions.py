"""Phrases that captions share."""

from collections.abc import Iterable, Sequence

from analysis.reading.experiment import Experiment
from analysis.reading.run import Run

_MAX_IDS = 8
_MAX_NAMES = 4


def count(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def name_runs(runs: Iterable[Run]) -> str:
    """`Runs: 1a2b3c4d, ...`, the first few of them."""
    ids = [run.short_id for run in runs if run.run_id]
    more = f" and {len(ids) - _MAX_IDS} more (listed in the JSON file)" if len(ids) > _MAX_IDS else ""
    return f"Runs: {', '.join(ids[:_MAX_IDS])}{more}."


def name_seeds(experiment: Experiment) -> str:
    """`all seeds`, or those that figures show."""
    seeds = list(map(str, experiment.shown.seeds))
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else "all seeds"


def missing_note(experiment: Experiment) -> str:
    """A sentence about the cells without a finished run; empty if there are none."""
    missing = experiment.missing
    if not missing:
        return ""
    return f" Missing: {count(len(missing), 'trial')} ({name_some(missing)})."


def name_some(runs: Sequence[Run]) -> str:
    """The names of the first few runs."""
    names = ", ".join(run.name for run in runs[:_MAX_NAMES])
    return f"{names}, ..." if len(runs) > _MAX_NAMES else names


def left_out_note(candidates: Sequence[Run], shown: Sequence[Run], reason: str) -> str:
    """A sentence about the candidates that are not shown; empty if all are shown."""
    shown_ids = {run.run_id for run in shown}
    left_out = [run for run in candidates if run.run_id not in shown_ids]
    return f" Left out: {count(len(left_out), 'trial')} {reason}." if left_out else ""
