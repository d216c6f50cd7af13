"""Verification of a bundle: everything that can be computed again, compared with what is stored.

The rawest data of a bundle are trajectories, lookup tables, configs, measured metrics and registrations. All
other numbers, tables and verdicts follow from them.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from analysis.bundles.archive import read_member, sha256
from analysis.bundles.bundle_store import BundleStore
from analysis.bundles.check import Check
from analysis.bundles.results_record import MEASURES_FILE, VERDICTS_FILE, compute_results, is_table
from analysis.reading import tags
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.registration import FILE as REGISTRATION
from analysis.reading.run import Run
from analysis.reading.run_reader import read_files
from analysis.verdicts.claim import parse_record
from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.foundation.identity import fingerprint
from nas.foundation.validation import first_error
from nas.latency.table import LatencyTable
from nas.search.recomputation import TOLERANCE, Recomputed, SearchRecords, recompute
from nas.search.records import Evaluation
from nas.search.search_identity import RESULTS_VERSION, search_identity

MEASURED = (
    *("train_loss", "train_accuracy", "arch_loss", "val_accuracy", "initial_accuracy", "test_accuracy"),
    *("predicted_score", "epoch_seconds"),
)
"""What only repeating a search or a training gives again."""

CLAIMS_TAG = "tfnas.claims"
_NUM_DIGITS_OF_CELL = 32
_MAX_LENGTH = 80


def verify(store: BundleStore) -> list[Check]:
    """Recomputes everything in a bundle.

    Raises:
        UserError: the bundle cannot be read.
    """
    searches = [run for run in _runs(store) if run.kind == "search" and run.is_finished]
    runs = read_files(searches, store)
    return [
        Check("checksums of files", len(store.files) - 1),
        _check_registrations(store),
        _check_identities(store, runs),
        *_check_searches(store, runs),
        _check_trainings(store),
        *_check_results(store),
    ]


def current_searches(store: BundleStore) -> list[Run]:
    """The finished searches that this version would compute in the same way, without their files."""
    return [run for run in _runs(store) if run.kind == "search" and run.is_finished and _is_current(run)]


def config_of(run: Run) -> SearchConfig:
    """The config of a search.

    Raises:
        UserError: it has an impossible value.
    """
    fields = {name: value for name, value in run.config.items() if name in SearchConfig.model_fields}
    try:
        return SearchConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{name_of(run)}: {first_error(error)}") from None


def table_of(run: Run, store: BundleStore) -> LatencyTable | None:
    """The lookup table of a search; None if the bundle has none.

    Raises:
        UserError: it is damaged.
    """
    with TemporaryDirectory() as folder:
        path = store.fetch(run, "latency_table.json", Path(folder))
        return None if path is None else LatencyTable.load(path)


def name_of(run: Run) -> str:
    """A run, for people."""
    return f"{run.name} ({run.short_id})"


def _check_registrations(store: BundleStore) -> Check:
    """What launches registered, by the hashes that they tagged their runs with."""
    check = Check("registrations, and the claims that were judged")
    last: tuple[int, Any] = (-1, None)
    for run in _runs(store):
        content = store.content_of(run.run_id, REGISTRATION)
        if content is None or tags.REGISTRATION not in run.tags:
            continue
        check.compare(name_of(run), "hash of the registration", run.tags[tags.REGISTRATION], sha256(content))
        registered = _parse(content, REGISTRATION)
        claims = registered.get("claims") if isinstance(registered, dict) else None
        if CLAIMS_TAG in run.tags:
            check.compare(name_of(run), "hash of the claims", run.tags[CLAIMS_TAG], _fingerprint(claims))
        if run.tags.get(tags.REGISTERS) == "search" and run.start_time_ms >= last[0]:
            last = run.start_time_ms, claims
    judged = {name: verdict.get("claim") for name, verdict in _verdicts(store.files).items()}
    if judged and isinstance(last[1], dict):
        for name in sorted({*judged, *last[1]}):
            of_judged, of_registered = (_hash_of_claim(claims.get(name)) for claims in (judged, last[1]))
            check.compare(f"claim ({name})", "hash, as judged and as registered", of_judged, of_registered)
    return check


def _fingerprint(claims: Any) -> str:
    """The hash of claims; why there is none where they are not JSON."""
    try:
        return fingerprint(claims)
    except ValueError as error:
        return str(error)


def _hash_of_claim(content: Any) -> str:
    """The hash of a claim; why there is none where it is no claim."""
    try:
        return parse_record(content, "claim").sha256 if isinstance(content, dict) else "none"
    except UserError as error:
        return str(error)


def _check_identities(store: BundleStore, runs: Sequence[Run]) -> Check:
    """Whether config, lookup table and images of a search are those that its identity stands for."""
    check = Check("identities of searches (config, lookup table and images)")
    for run in runs:
        if not _is_current(run):
            continue
        table = table_of(run, store)
        if table is not None:
            check.compare(name_of(run), "lookup table", run.tag(tags.TABLE_FINGERPRINT), table.fingerprint)
        try:
            config = config_of(run)
        except UserError as error:
            check.disagree(name_of(run), "config", str(error), "none that can be")
            continue
        identity = search_identity(config, run.tag(tags.TABLE_FINGERPRINT), run.tag(tags.DATA_FINGERPRINT))
        check.compare(name_of(run), "cell", run.tag(tags.CELL), fingerprint(identity)[:_NUM_DIGITS_OF_CELL])
    return check


def _check_searches(store: BundleStore, runs: Sequence[Run]) -> list[Check]:
    """What follows from the trajectory of each search, and the last metrics from those by epoch."""
    recomputed = Check("operators, widths, latencies and health by epoch")
    last = Check("last metrics of searches")
    tables: dict[str, LatencyTable | None] = {}
    num_other = 0
    for run in runs:
        fingerprint_of = run.tag(tags.TABLE_FINGERPRINT)
        if fingerprint_of not in tables:
            tables[fingerprint_of] = table_of(run, store)
        table = tables[fingerprint_of]
        if run.problem or not _is_current(run) or table is None:
            num_other += 1
            continue
        for quantity in _recompute(run, table):
            if isinstance(quantity, str):
                recomputed.disagree(name_of(run), "trajectory", "records", quantity)
            else:
                recomputed.compare(
                    name_of(run),
                    quantity.quantity,
                    quantity.stored,
                    quantity.recomputed,
                    quantity.tolerance,
                )
        assert run.epochs is not None
        for name in map(str, run.epochs):
            values = run.epochs[name].dropna()
            if name in run.metrics and len(values):
                last.compare(name_of(run), name, run.metrics[name], float(values.iloc[-1]), TOLERANCE)
    if num_other:
        recomputed.notes.append(
            f"{num_other} searches left out: they are older, incomplete or of another results version"
        )
    return [recomputed, last]


def _recompute(run: Run, table: LatencyTable) -> Iterator[Recomputed | str]:
    """What follows from the records of a search; a text where they cannot belong together."""
    assert run.trajectory is not None
    assert run.architecture is not None
    assert run.epochs is not None
    try:
        records = SearchRecords(
            config_of(run),
            table,
            run.trajectory,
            {str(name): pd.to_numeric(run.epochs[name]).to_numpy(np.float64) for name in run.epochs},
            run.architecture,
            _evaluations(run),
            run.health,
        )
        yield from recompute(records)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        # Arrays that no search leaves behind.
        yield f"not possible ({type(error).__name__}: {str(error)[:_MAX_LENGTH]})"


def _evaluations(run: Run) -> list[tuple[int, Evaluation]]:
    if run.evaluations is None:
        return []
    return [
        (
            int(row["epoch"]),
            Evaluation(int(number), row["architecture"], row["latency_ms"], row["val_accuracy"]),
        )
        for number, row in zip(run.evaluations.index, run.evaluations.to_dict("records"), strict=True)
    ]


def _check_trainings(store: BundleStore) -> Check:
    """Whether a network that was trained is the one that its search found."""
    check = Check("networks that were trained")
    for run in _runs(store):
        search = run.tags.get(tags.SEARCH_RUN)
        trained = store.content_of(run.run_id, "architecture.json")
        if run.kind == "train" and search and trained is not None:
            found = store.content_of(search, "architecture.json")
            if found is not None:
                check.compare(name_of(run), "network", _network(trained), _network(found))
    return check


def _network(content: bytes) -> Any:
    """An architecture as JSON, without its name."""
    network = _parse(content, "architecture.json")
    return network.get("stages") if isinstance(network, dict) else None


def _check_results(store: BundleStore) -> list[Check]:
    """Measures, tables and verdicts, from the runs of the bundle."""
    measures, tables, verdicts = (Check(title) for title in ("measures of searches", "tables", "verdicts"))
    try:
        experiment = read_experiment(store.experiment, store)
        results = compute_results(experiment)
    except UserError as error:
        # Files can be read by now, so this is about what they say: a registration that is another one, say.
        verdicts.disagree("results", "measures, tables and verdicts", "there", str(error))
        return [measures, tables, verdicts]
    names = {run.run_id: name_of(run) for run in experiment.runs}
    stored, recomputed = _measures(store.files), _measures(results)
    for run_id in sorted({*stored, *recomputed}):
        where = names.get(run_id, f"run {run_id[:8]}")
        measures.compare(where, "measure", stored.get(run_id), recomputed.get(run_id), TOLERANCE)
    judged, judged_again = _verdicts(store.files), _verdicts(results)
    for name in sorted({*judged, *judged_again}):
        verdicts.compare(f"claim ({name})", "verdict", judged.get(name), judged_again.get(name), TOLERANCE)
    for path in sorted(filter(is_table, {*store.files, *results})):
        rows, rows_again = _rows(store.files.get(path)), _rows(results.get(path))
        tables.compare(path.rpartition("/")[2], "row", rows, rows_again, TOLERANCE)
    return [measures, tables, verdicts]


def _measures(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The stored measures of each run, by its id."""
    found = _parse(files.get(MEASURES_FILE, b"{}"), MEASURES_FILE)
    if not isinstance(found, dict):
        raise UserError(f"{MEASURES_FILE}: not the measures of runs; write the bundle again")
    return found


def _verdicts(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The stored verdicts, by the names of their claims."""
    found = _parse(files.get(VERDICTS_FILE, b"[]"), VERDICTS_FILE)
    if not isinstance(found, list) or not all(isinstance(one, dict) and "name" in one for one in found):
        raise UserError(f"{VERDICTS_FILE}: not verdicts; write the bundle again")
    return {str(one["name"]): one for one in found}


def _rows(content: bytes | None) -> list[dict[str, str | float]] | None:
    """The rows of a CSV file, with numbers where they are."""
    if content is None:
        return None
    text = content.decode("utf-8", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error:
        return [{"text": text}]
    return [{str(name): _number(str(cell)) for name, cell in row.items()} for row in rows]


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _runs(store: BundleStore) -> Sequence[Run]:
    return store.read_experiment(store.experiment).runs


def _is_current(run: Run) -> bool:
    """Whether this version computes what the run's version computed."""
    return run.basis.results_version == str(RESULTS_VERSION)


def _parse(content: bytes, path: str) -> Any:
    try:
        return read_member(content, path)
    except ValueError as error:
        raise UserError(f"{error}; write the bundle again") from None
