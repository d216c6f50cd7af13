"""The results of a study as files: its points, importances, and the best points ready to launch."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from experiments.cells.search_cell import SearchCell
from experiments.specs.experiment_spec import with_absolute_paths
from experiments.specs.study_grid import StudyGrid
from experiments.studies.importance import measure_importances
from experiments.studies.points import FAILURE, finished_trials
from nas.config import SearchConfig

_NUM_BEST = 3
_NUM_FRESH_SEEDS = 3


def write_results(
    plan: StudyGrid, study: optuna.Study, kinds: Sequence[SearchCell], out: Path
) -> Path | None:
    """Writes `study/study.json`, `study/trials.csv` and, if a point has a value, `best.yaml`.

    Args:
        kinds: from `StudyGrid.check_reach`.

    Returns:
        The path of `best.yaml`.
    """
    folder = out / "study"
    folder.mkdir(parents=True, exist_ok=True)
    trials = list(finished_trials(study))
    _write_trials(plan, trials, folder / "trials.csv")
    _write_about(plan, trials, folder / "study.json")
    best = best_trials(study)
    if not best:
        return None
    tables = {cell.config.latency_table for cell in kinds}
    text = _best_as_yaml(plan, best, tables.pop() if len(tables) == 1 else None)
    path = out / "best.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The Pareto front of several objectives, or the best few of one; equal points count once."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not complete:
        return []
    if len(study.directions) > 1:
        best = sorted(study.best_trials, key=lambda trial: trial.values)
    else:
        sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
        best = sorted(complete, key=lambda trial: sign * trial.values[0])
    distinct: dict[str, FrozenTrial] = {}
    for trial in best:
        distinct.setdefault(json.dumps(trial.params, sort_keys=True), trial)
    return list(distinct.values())[: None if len(study.directions) > 1 else _NUM_BEST]


def _write_trials(plan: StudyGrid, trials: Sequence[FrozenTrial], path: Path) -> None:
    metrics = [objective.metric for objective in plan.study.objectives]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "state", *metrics, *plan.study.space, "failure"])
        for trial in trials:
            # Optuna uses the last epoch of a pruned trial as its value; here only whole searches have one.
            is_complete = trial.state == TrialState.COMPLETE
            values = trial.values if is_complete else [""] * len(metrics)
            # As text, so that None differs from a field that was not varied.
            params = [str(trial.params[one]) if one in trial.params else "" for one in plan.study.space]
            failure = trial.user_attrs.get(FAILURE, "")
            writer.writerow([trial.number, trial.state.name, *values, *params, failure])


def _write_about(plan: StudyGrid, trials: Sequence[FrozenTrial], path: Path) -> None:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    metrics = [objective.metric for objective in plan.study.objectives]
    space = {
        field: domain.model_dump(mode="json") | {"text": str(domain)}
        for field, domain in plan.study.space.items()
    }
    content = plan.study.model_dump(mode="json", exclude={"storage", "seeds"}) | {
        "name": plan.spec.experiment,
        "space": space,
        "seeds": plan.seeds,
        "importances": [
            asdict(importance)
            for importance in measure_importances(complete, list(plan.study.space), metrics)
        ],
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _best_as_yaml(plan: StudyGrid, best: Sequence[FrozenTrial], table: str | None) -> str:
    """A grid of the best points, with seeds that the study has not used."""
    base = with_absolute_paths(plan.spec.base, plan.path.resolve().parent)
    base.pop("seed", None)
    if table is not None and "latency_table" not in plan.study.space:
        base["latency_table"] = str(Path(table).resolve())
    fields = [field for field in plan.study.space if any(field in trial.params for trial in best)]
    cells = [{field: _value(plan, base, trial, field) for field in fields} for trial in best]
    for field in fields:
        base.pop(field, None)
    first_seed = max(plan.seeds) + 1
    content = {
        "experiment": f"{plan.spec.experiment[:95]}-best",
        "base": base,
        "cells": cells,
        "grid": {"seed": list(range(first_seed, first_seed + _NUM_FRESH_SEEDS))},
        "resources": plan.spec.resources.model_dump(mode="json"),
    }
    return "\n".join([*_comment(plan, best), yaml.safe_dump(content, sort_keys=False)])


def _value(plan: StudyGrid, base: dict[str, Any], trial: FrozenTrial, field: str) -> Any:
    """The value of a field; the one in `base` if it was not sampled."""
    default = SearchConfig.model_fields[field].get_default()
    return trial.params.get(field, base.get(field, default))


def _comment(plan: StudyGrid, best: Sequence[FrozenTrial]) -> list[str]:
    objectives = plan.study.objectives
    which = "Pareto front" if len(objectives) > 1 else "best points"
    rows = [
        f"#   trial {trial.number}: "
        + ", ".join(f"{one.metric} {value:.4g}" for one, value in zip(objectives, trial.values, strict=True))
        for trial in best
    ]
    return [
        f"# The {which} of the study '{plan.spec.experiment}', in the order of `cells`:",
        *rows,
        f"# These values (seeds {plan.seeds}) are optimistic, since the points were chosen by them:",
        "# so this file uses new seeds.",
    ]
