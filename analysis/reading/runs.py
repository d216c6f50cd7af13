"""The one reader: an MLflow experiment as records, each run with its epochs and its trajectory.

A store is read in bulk: one search for all runs, then each run's own files. Runs that were measured
with different lookup tables, or by different code, are never mixed: one group of them is read, and
a notice says which were left out.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from analysis.reading.experiment import (
    OF_NETWORK,
    SEED,
    Experiment,
    Provenance,
    Run,
    same_terms,
    sort_runs,
    varying_fields,
)
from analysis.reading.store import fetch_artifact, find_experiment, is_remote, refuse_broken_store, search_all
from analysis.reading.study_record import STUDY_TAG, StudyRecord, read_study
from analysis.reading.values import Value, parse_value
from nas.foundation.errors import UserError
from nas.search.records import METRIC_NAMES, Trajectory
from nas.space.macro_space import get_space

_NUM_DOWNLOADS = 8
_PARENT_TAG = "mlflow.parentRunId"
_NAME_IN_STUDY = re.compile(r"trial-\d+-s\d+")


def read_experiment(
    name: str, tracking_uri: str, *, table: str | None = None, code_version: str | None = None
) -> Experiment:
    """Reads the comparable search runs of an experiment, with their epochs and trajectories.

    Args:
        table: first digits of the lookup table's fingerprint; None for the table of most runs.
        code_version: first characters of the code version; None for that of most runs.

    Raises:
        UserError: no such experiment, or no finished search run in it.
    """
    experiment_id, all_runs = _read_records(name, tracking_uri)
    searches = [run for run in all_runs if run.kind == "search"]
    if not any(run.status == "FINISHED" for run in searches):
        raise UserError(
            f"experiment '{name}': no finished search run ({_count_outcomes(searches)}); "
            "launch it again, or wait for its trials"
        )
    provenance, of_group, notices = _choose_provenance(searches, table, code_version)
    finished, missing, superseded = _newest_per_cell(of_group)
    if superseded:
        notices.append(f"{superseded} runs left out: a newer run of the same cell is used")
    runs = _read_files(finished, tracking_uri)
    left_out = {run.run_id for run in searches} - {run.run_id for run in runs}
    training, other_terms = _choose_trainings(all_runs, left_out)
    notices += other_terms
    notices += [f"run {run.name} ({run.short_id}): {run.problem}" for run in runs if run.problem]
    notices += [f"missing: {run.name} ({run.short_id}): {run.outcome}" for run in missing]
    return Experiment(
        name=name,
        experiment_id=experiment_id,
        tracking_uri=tracking_uri,
        provenance=provenance,
        runs=tuple(runs),
        missing=tuple(missing),
        training=training,
        notices=tuple(notices),
        study=_newest_study(all_runs, tracking_uri),
    )


def read_trainings(name: str, tracking_uri: str, cells: Collection[str]) -> Experiment:
    """Reads these trainings of an experiment, and the searches that found their networks.

    Args:
        cells: hashes of the trainings' cells.

    Raises:
        UserError: no such experiment.
    """
    experiment_id, all_runs = _read_records(name, tracking_uri)
    training = tuple(
        run for run in all_runs if run.status == "FINISHED" and run.tags.get("tfnas.cell") in cells
    )
    found = {run.tags.get("tfnas.search_run") for run in training}
    searches = sort_runs([run for run in all_runs if run.run_id in found], (SEED,))
    provenance = searches[0].provenance if searches else Provenance("none", "none")
    return Experiment(name, experiment_id, tracking_uri, provenance, tuple(searches), (), training, ())


def _read_records(name: str, tracking_uri: str) -> tuple[str, list[Run]]:
    with refuse_broken_store(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        experiment_id = find_experiment(client, name)
        return experiment_id, [_record(run) for run in search_all(client, experiment_id)]


def _choose_trainings(runs: Sequence[Run], searches_left_out: set[str]) -> tuple[tuple[Run, ...], list[str]]:
    """The finished trainings under the terms of most of them (or the newest), and what was left out."""
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        is_own = run.tags.get("tfnas.search_run") not in searches_left_out
        if run.kind == "train" and run.status == "FINISHED" and is_own:
            groups.setdefault(same_terms(run), []).append(run)
    if not groups:
        return (), []
    chosen = max(groups.values(), key=lambda group: (len(group), max(run.start_time_ms for run in group)))
    notices = [
        f"{len(group)} trainings left out, under other terms ({_describe_terms(group[0], chosen[0])})"
        for group in groups.values()
        if group is not chosen
    ]
    order = sorted(chosen, key=lambda run: (str(run.config.get("architecture")), run.start_time_ms))
    return tuple(order), notices


def _describe_terms(run: Run, chosen: Run) -> str:
    """In what a training's terms differ from those chosen."""
    changed = [
        f"{name} {run.config.get(name)}, not {chosen.config.get(name)}"
        for name in varying_fields([run, chosen])
        if name not in OF_NETWORK
    ]
    return "; ".join(changed) or "other code or images"


def read_run(run: MlflowRun, tracking_uri: str) -> Run:
    """One run of MLflow with its files."""
    return _read_files([_record(run)], tracking_uri)[0]


def _newest_study(runs: Sequence[Run], tracking_uri: str) -> StudyRecord | None:
    studies = [run for run in runs if STUDY_TAG in run.tags]
    if not studies:
        return None
    newest = max(studies, key=lambda run: run.start_time_ms)
    searches = _searches_of(newest, runs)
    return read_study(newest.run_id, newest.artifact_uri, tracking_uri, searches)


def _searches_of(study: Run, runs: Sequence[Run]) -> set[str]:
    """Ids of a study's searches: of one study all have its run for a parent, over all its launches.

    But for a store that took the place of another one: told anew from their journals, searches that had
    ended name a parent that is not there. Their names say that they are of a study.
    """
    launches = {run.run_id for run in runs if run.kind == "launch"}
    return {
        run.run_id
        for run in runs
        if (parent := run.tags.get(_PARENT_TAG)) == study.run_id
        or (parent not in launches and _NAME_IN_STUDY.fullmatch(run.name))
    }


def _record(run: MlflowRun) -> Run:
    tags = dict(run.data.tags)
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        kind=tags.get("tfnas.kind", "other"),
        config={name: parse_value(name, text) for name, text in run.data.params.items()},
        metrics=dict(run.data.metrics),
        tags=tags,
        failure=tags.get("tfnas.failure"),
        start_time_ms=run.info.start_time or 0,
        artifact_uri=run.info.artifact_uri,
    )


def _choose_provenance(
    runs: Sequence[Run], table: str | None, code_version: str | None
) -> tuple[Provenance, list[Run], list[str]]:
    """The provenance of most finished runs among those asked for; the newest of equals."""
    groups: dict[Provenance, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.provenance, []).append(run)
    asked = {
        provenance: group
        for provenance, group in groups.items()
        if provenance.table_fingerprint.startswith(table or "")
        and provenance.code_version.startswith(code_version or "")
        and any(run.status == "FINISHED" for run in group)
    }
    if not asked:
        raise UserError(
            f"--table {table or 'any'}, --code-version {code_version or 'any'}: no finished run of these; "
            f"there are: {'; '.join(map(str, groups))}"
        )

    def rank(provenance: Provenance) -> tuple[int, int]:
        finished = [run for run in asked[provenance] if run.status == "FINISHED"]
        return len(finished), max(run.start_time_ms for run in finished)

    chosen = max(asked, key=rank)
    notices = [
        f"{len(group)} runs left out: {provenance} (read: {chosen}); choose with --table, --code-version"
        for provenance, group in groups.items()
        if provenance != chosen
    ]
    return chosen, groups[chosen], notices


def _newest_per_cell(runs: Sequence[Run]) -> tuple[list[Run], list[Run], int]:
    """For each cell its newest finished run, else its newest run as missing; and how many are neither."""
    factors = (*varying_fields(runs), SEED)
    cells: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(run.setting(factors), []).append(run)
    newest = [
        max(cell, key=lambda run: (run.status == "FINISHED", run.start_time_ms)) for cell in cells.values()
    ]
    newest = sort_runs(newest, factors[:-1])
    finished = [run for run in newest if run.status == "FINISHED"]
    missing = [run for run in newest if run.status != "FINISHED"]
    num_superseded = sum(
        sum(run.status == "FINISHED" for run in cell) - 1
        for cell in cells.values()
        if any(run.status == "FINISHED" for run in cell)
    )
    return finished, missing, num_superseded


def _read_files(runs: Sequence[Run], tracking_uri: str) -> list[Run]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(_NUM_DOWNLOADS if any(is_remote(run.artifact_uri) for run in runs) else 1) as pool,
    ):
        return list(pool.map(lambda run: _with_files(run, tracking_uri, Path(folder) / run.run_id), runs))


def _with_files(run: Run, tracking_uri: str, folder: Path) -> Run:
    problems = []
    trajectory = epochs = None
    path = fetch_artifact(run.run_id, run.artifact_uri, "trajectory.npz", tracking_uri, folder)
    if path is None:
        problems.append("trajectory.npz is missing")
    else:
        try:
            loaded = Trajectory.load(path)
            _check_space(loaded)
            trajectory = loaded
        except UserError as error:
            problems.append(f"trajectory.npz: {_reason(error, path)}")
    path = fetch_artifact(run.run_id, run.artifact_uri, "metrics.csv", tracking_uri, folder)
    if path is None:
        problems.append("metrics.csv is missing")
    else:
        try:
            epochs = pd.read_csv(path, index_col="epoch")
            if lacking := [name for name in METRIC_NAMES if name not in epochs]:
                problems.append(f"metrics.csv lacks {', '.join(lacking)}")
                epochs = epochs.reindex(columns=list(METRIC_NAMES))
        except (ValueError, pd.errors.ParserError) as error:
            problems.append(f"metrics.csv: {_one_line(error)}")
    if not problems:
        return replace(run, epochs=epochs, trajectory=trajectory)
    version = run.tags.get("tfnas.version", "unknown")
    problem = f"{'; '.join(problems)} (written by version {version}); drawn only where not needed"
    return replace(run, epochs=epochs, trajectory=trajectory, problem=problem)


def _check_space(trajectory: Trajectory) -> None:
    num_layers, known = trajectory.alpha_ELO.shape[1], len(get_space(trajectory.space).layers)
    if num_layers != known:
        raise UserError(f"space '{trajectory.space}' had {num_layers} layers then and has {known} now")


def _count_outcomes(runs: Sequence[Run]) -> str:
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no runs at all"


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _reason(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
