"""The reader of experiments: the runs of an experiment that can be compared.

Only the runs of the grid that was launched last are compared, unless every run is asked for. A store is
read in bulk: one search for all runs, then the files of each run. Runs with different lookup tables or
results versions are never mixed: one group of them is read, and a notice names the others.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from analysis.reading import tags
from analysis.reading.captions import count, name_some
from analysis.reading.experiment import Experiment
from analysis.reading.registration import DamagedRegistration, Registration, read_registrations
from analysis.reading.run import (
    NETWORK_FIELDS,
    SEED,
    ComparisonBasis,
    Run,
    name_images,
    notice_makers,
    sort_runs,
    training_terms,
    varying_fields,
)
from analysis.reading.run_reader import read_files
from analysis.reading.run_store import RunStore, store_at
from analysis.reading.study_record import StudyRecord, read_study
from analysis.reading.values import Value
from nas.foundation.errors import UserError

_NAME_IN_STUDY = re.compile(r"trial-\d+-s\d+")


def read_experiment(
    name: str,
    store: RunStore | str,
    *,
    table: str | None = None,
    code_version: str | None = None,
    all_runs: bool = False,
) -> Experiment:
    """Reads the comparable runs of an experiment, searches with their epochs and trajectories.

    These are the runs of the grid that was launched last, and the searches of the newest study.

    Args:
        store: where the runs are: an address means an MLflow store.
        table: first digits of the lookup table's fingerprint; None for the table of most searches.
        code_version: first digits of the hash of the source that made the runs; None for any source.
        all_runs: whether to read every run, whatever was launched last.

    Raises:
        UserError: no such experiment, or no finished search in it.
    """
    store = store_at(store)
    stored = store.read_experiment(name)
    records = stored.runs
    launches = [run for run in records if run.kind == "launch"]
    registrations, damaged = read_registrations(launches, store)
    study = _newest_study(records, store)
    grid = None if all_runs else _last_registered("search", registrations, damaged)
    searches, left_out = _searches_of_grid(grid, records, study)
    searches = name_images(searches)
    _check_any_finished(name, grid, searches, left_out)
    notices = [one.problem for one in damaged]
    if grid and left_out:
        notices.append(
            f"{count(len(left_out), 'run')} left out: not in the grid launched last ({grid.file}); "
            "read all with --all-runs"
        )
    basis, of_basis, other_bases = _choose_basis(searches, table or "", code_version or "")
    notices += other_bases
    finished, missing, num_superseded = _newest_per_cell(of_basis)
    if num_superseded:
        notices.append(f"{count(num_superseded, 'run')} left out: a newer run of the same cell is used")
    runs = read_files(finished, store)
    trained = name_images(run for run in records if run.kind == "train")
    trained = _of_source(trained, code_version or "")
    if not all_runs:
        trained, not_in_grid = _trainings_of_grid(trained, registrations, damaged)
        notices += not_in_grid
    not_read = {run.run_id for run in records if run.kind == "search"} - {run.run_id for run in runs}
    training, other_terms = _choose_trainings(trained, not_read)
    notices += other_terms
    notices += notice_makers([*runs, *training])
    notices += [f"run {run.name} ({run.short_id}): {run.problem}" for run in runs if run.problem]
    notices += _notice_missing(missing)
    return Experiment(
        name=name,
        experiment_id=stored.experiment_id,
        tracking_uri=store.tracking_uri,
        basis=basis,
        runs=tuple(runs),
        missing=tuple(missing),
        training=training,
        notices=tuple(notices),
        study=study,
        registered=grid,
        registrations=tuple(one for one in registrations if one.kind == "search"),
        training_registrations=tuple(one for one in registrations if one.kind == "train"),
        left_out=tuple(left_out),
        failed_training=tuple(run for run in trained if run.status == "FAILED"),
        views=stored.views,
        store=store,
    )


def read_trainings(name: str, store: RunStore | str, cells: Collection[str]) -> Experiment:
    """Reads these trainings of an experiment, and the searches that found their networks.

    Args:
        cells: hashes of the cells of the trainings.

    Raises:
        UserError: no such experiment.
    """
    store = store_at(store)
    stored = store.read_experiment(name)
    training = name_images(run for run in stored.runs if run.is_finished and run.tags.get(tags.CELL) in cells)
    found = {run.tags.get(tags.SEARCH_RUN) for run in training}
    searches = sort_runs(name_images(run for run in stored.runs if run.run_id in found), (SEED,))
    basis = searches[0].basis if searches else ComparisonBasis("none", "none")
    return Experiment(
        name,
        stored.experiment_id,
        store.tracking_uri,
        basis,
        tuple(searches),
        (),
        tuple(training),
        (),
        store=store,
    )


def _last_registered(
    kind: str, registrations: Sequence[Registration], damaged: Sequence[DamagedRegistration]
) -> Registration | None:
    """The grid that was launched last; None if no launch registered any.

    Raises:
        UserError: its record is damaged.
    """
    everything: list[Registration | DamagedRegistration] = [*registrations, *damaged]
    of_kind = [one for one in everything if one.kind == kind]
    last = max(of_kind, key=lambda one: one.last_time_ms, default=None)
    if isinstance(last, DamagedRegistration):
        raise UserError(
            f"{last.problem}; read every run with --all-runs, or delete the run of that launch in MLflow and "
            "launch the grid again"
        )
    return last


def _searches_of_grid(
    grid: Registration | None, records: Sequence[Run], study: StudyRecord | None
) -> tuple[list[Run], list[Run]]:
    """The searches of a grid, those not started included, and of the study; and what is left out.

    Args:
        grid: None for all searches.
    """
    searches = [run for run in records if run.kind == "search"]
    if grid is None:
        return searches, []
    of_study = study.searches if study else frozenset()
    found, left_out = [], []
    for run in searches:
        if run.tags.get(tags.CELL) in grid.cells:
            found.append(replace(run, config=grid.complete(run)))
        elif run.run_id in of_study:
            found.append(run)
        else:
            left_out.append(run)
    begun = {run.tags.get(tags.CELL) for run in found}
    return found + [grid.not_started(cell) for cell in grid.cells if cell not in begun], left_out


def _check_any_finished(
    name: str, grid: Registration | None, searches: Sequence[Run], left_out: Sequence[Run]
) -> None:
    if any(run.is_finished for run in searches):
        return
    if grid and any(run.is_finished for run in left_out):
        raise UserError(
            f"experiment '{name}': no finished search of the grid launched last ({grid.file}: "
            f"{_count_outcomes(searches)}); launch it again, wait for its trials, or read the "
            f"{len(left_out)} other runs with --all-runs"
        )
    raise UserError(
        f"experiment '{name}': no finished search ({_count_outcomes(searches)}); "
        "launch it again, or wait for its trials"
    )


def _trainings_of_grid(
    trainings: Sequence[Run], registrations: Sequence[Registration], damaged: Sequence[DamagedRegistration]
) -> tuple[list[Run], list[str]]:
    """The trainings of the grid of trainings launched last, and a line on the others; all without a grid."""
    try:
        grid = _last_registered("train", registrations, damaged)
    except UserError:
        # It already has a notice, and figures of searches do not depend on it.
        return list(trainings), []
    if grid is None:
        return list(trainings), []
    found = [run for run in trainings if run.tags.get(tags.CELL) in grid.cells]
    if not (num_others := sum(run.is_finished for run in trainings) - sum(run.is_finished for run in found)):
        return found, []
    return found, [
        f"{count(num_others, 'training')} left out: not in the grid of trainings launched last "
        f"({grid.file}); read all with --all-runs"
    ]


def _notice_missing(missing: Sequence[Run]) -> list[str]:
    notices = [f"missing: {run.name} ({run.short_id}): {run.outcome}" for run in missing if run.run_id]
    if not_started := [run for run in missing if not run.run_id]:
        number = f"{len(not_started)} of the grid's searches"
        notices.append(f"missing: {number} not started: {name_some(not_started)}")
    return notices


def _of_source(runs: Sequence[Run], code_version: str) -> list[Run]:
    """The runs that a version of the source made, and cells not started."""
    return [run for run in runs if not run.run_id or run.code_version.startswith(code_version)]


def _choose_basis(
    searches: Sequence[Run], table: str, code_version: str
) -> tuple[ComparisonBasis, list[Run], list[str]]:
    """The basis of most finished searches (the newest of equals), its searches, and what is left out."""
    groups: dict[ComparisonBasis, list[Run]] = {}
    for run in searches:
        groups.setdefault(run.basis, []).append(run)
    of_source = {basis: _of_source(group, code_version) for basis, group in groups.items()}
    asked = {
        basis: group
        for basis, group in of_source.items()
        if basis.table_fingerprint.startswith(table) and any(run.is_finished for run in group)
    }
    if not asked:
        there_are = "; ".join(
            f"{basis}, source {source[:12]}"
            for basis, group in groups.items()
            for source in sorted({run.code_version for run in group if run.run_id})
        )
        raise UserError(
            f"--table {table or 'any'}, --code-version {code_version or 'any'}: no finished run of these; "
            f"use values of {there_are}"
        )

    def rank(basis: ComparisonBasis) -> tuple[int, int]:
        finished = [run for run in asked[basis] if run.is_finished]
        return len(finished), max(run.start_time_ms for run in finished)

    chosen = max(asked, key=rank)
    notices = [
        f"{_count_runs(group)} left out: {basis} (read: {chosen}); choose with --table or --code-version"
        for basis, group in groups.items()
        if basis != chosen
    ]
    if num_others := len(groups[chosen]) - len(asked[chosen]):
        notices.append(
            f"{count(num_others, 'run')} left out: of another source than {code_version} (--code-version)"
        )
    return chosen, asked[chosen], notices


def _newest_per_cell(runs: Sequence[Run]) -> tuple[list[Run], list[Run], int]:
    """Returns the newest finished run of each cell, the cells without one, and how many runs are older."""
    factors = (*varying_fields(runs), SEED)
    cells: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(run.setting(factors), []).append(run)
    newest = [max(cell, key=lambda run: (run.is_finished, run.start_time_ms)) for cell in cells.values()]
    newest = sort_runs(newest, factors[:-1])
    finished = [run for run in newest if run.is_finished]
    missing = [run for run in newest if not run.is_finished]
    num_superseded = sum(run.is_finished for run in runs) - len(finished)
    return finished, missing, num_superseded


def _choose_trainings(runs: Sequence[Run], searches_left_out: set[str]) -> tuple[tuple[Run, ...], list[str]]:
    """The finished trainings under the terms of most of them (or the newest), and what is left out."""
    groups: dict[tuple[Value, ...], list[Run]] = {}
    num_of_others = 0
    for run in runs:
        if not run.is_finished:
            continue
        if run.tags.get(tags.SEARCH_RUN) in searches_left_out:
            num_of_others += 1
        else:
            groups.setdefault(training_terms(run), []).append(run)
    notices = (
        [f"{count(num_of_others, 'training')} left out, like the searches that found their networks"]
        if num_of_others
        else []
    )
    if not groups:
        return (), notices
    chosen = max(groups.values(), key=lambda group: (len(group), max(run.start_time_ms for run in group)))
    notices += [
        f"{count(len(group), 'training')} left out: other terms ({_describe_terms(group[0], chosen[0])})"
        for group in groups.values()
        if group is not chosen
    ]
    order = sorted(chosen, key=lambda run: (str(run.config.get("architecture")), run.start_time_ms))
    return tuple(order), notices


def _describe_terms(run: Run, chosen: Run) -> str:
    """How the terms of a training differ from the chosen ones."""
    changed = [
        f"{name} {run.config.get(name)}, not {chosen.config.get(name)}"
        for name in varying_fields([run, chosen])
        if name not in NETWORK_FIELDS
    ]
    return "; ".join(changed) or "other images or results version"


def _newest_study(runs: Sequence[Run], store: RunStore) -> StudyRecord | None:
    studies = [run for run in runs if tags.STUDY in run.tags]
    if not studies:
        return None
    newest = max(studies, key=lambda run: run.start_time_ms)
    return read_study(newest, store, _searches_of(newest, runs))


def _searches_of(study: Run, runs: Sequence[Run]) -> set[str]:
    """Ids of a study's searches.

    The run of the study is their parent, over all its launches. If a new store replaced a lost one, the
    searches that had ended before name a parent that is not there; their names tell that they belong to
    a study.
    """
    launches = {run.run_id for run in runs if run.kind == "launch"}
    return {
        run.run_id
        for run in runs
        if (parent := run.tags.get(tags.PARENT)) == study.run_id
        or (parent not in launches and _NAME_IN_STUDY.fullmatch(run.name))
    }


def _count_runs(cells: Sequence[Run]) -> str:
    num_runs = sum(bool(run.run_id) for run in cells)
    num_others = len(cells) - num_runs
    not_started = f"{num_others} search{'' if num_others == 1 else 'es'} not started" if num_others else ""
    return " and ".join(filter(None, (count(num_runs, "run") if num_runs else "", not_started)))


def _count_outcomes(runs: Sequence[Run]) -> str:
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "no runs at all"
