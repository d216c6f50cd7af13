"""The one reader: an MLflow experiment as records, each run with its epochs and its trajectory.

A store is read in bulk: one search for all runs, then each run's own files. Runs that were measured
with different lookup tables, or by different code, are never mixed: one group of them is read, and
a notice says which were left out.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas as pd
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis.values import Value, parse_value, show_value
from nas.architecture import Architecture
from nas.errors import UserError
from nas.latency.table import LatencyTable
from nas.records import Trajectory
from nas.space import Space, get_space

SEED = "seed"

_NOT_A_SETTING = frozenset(
    {"latency_table", "data_dir", "train_list", "test_list", "num_data_workers", "download", "device"}
)
"""Fields that say where things are or run; the table itself is compared by its fingerprint."""

_NUM_DOWNLOADS = 8


@dataclass(frozen=True)
class Provenance:
    """What runs must share to be compared: the lookup table and the code."""

    table_fingerprint: str
    code_version: str

    def __str__(self) -> str:
        return f"table {self.table_fingerprint[:8]}, code {self.code_version[:12]}"


@dataclass(frozen=True)
class Run:
    """One cell of a grid as MLflow knows it.

    Attributes:
        config: the flat config, typed again.
        metrics: the last value of each metric.
        failure: why the run failed, in one line; None where that is not known.
        start_time_ms: since 1970.
        epochs: one row an epoch, the metrics as columns, indexed by epoch; None if not read.
        trajectory: alphas, betas, widths of all epochs; None if not read.
        problem: why `epochs` or `trajectory` could not be read, in one line.
    """

    run_id: str
    name: str
    status: str
    kind: str
    config: Mapping[str, Value]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    failure: str | None
    start_time_ms: int
    artifact_uri: str
    epochs: pd.DataFrame | None = None
    trajectory: Trajectory | None = None
    problem: str | None = None

    @property
    def provenance(self) -> Provenance:
        """The run's lookup table and code."""
        return Provenance(
            self.tags.get("tfnas.table_fingerprint", "unknown"),
            self.tags.get("tfnas.code_version", "unknown"),
        )

    @property
    def short_id(self) -> str:
        """The first digits of the run id, for captions."""
        return self.run_id[:8]

    @property
    def seed(self) -> Value:
        """The search's seed."""
        return self.config.get(SEED)

    @property
    def outcome(self) -> str:
        """What became of the run, in a few words."""
        return f"{self.status.lower()}: {self.failure}" if self.failure else self.status.lower()

    @cached_property
    def space(self) -> Space:
        """The run's macro space."""
        return get_space(str(self.config["space"]))

    def number(self, name: str) -> float:
        """A numeric field of the config; NaN where the run has none."""
        value = self.config.get(name)
        return float(value) if isinstance(value, int | float) else float("nan")

    def setting(self, factors: Iterable[str]) -> tuple[Value, ...]:
        """The values of these factors."""
        return tuple(self.config.get(factor) for factor in factors)


@dataclass(frozen=True)
class Experiment:
    """The search runs of an MLflow experiment that can be compared.

    Attributes:
        runs: finished, one a cell, of one provenance; ordered by setting and seed.
        missing: cells of the same provenance without a finished run (failed, unfinished).
        training: finished runs that trained derived networks, whatever their provenance.
        notices: what was left out and why, for people.
    """

    name: str
    experiment_id: str
    tracking_uri: str
    provenance: Provenance
    runs: tuple[Run, ...]
    missing: tuple[Run, ...]
    training: tuple[Run, ...]
    notices: tuple[str, ...]

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Config fields that differ between the cells, the seed excepted."""
        return varying_fields([*self.runs, *self.missing])

    def other_factors(self, *factors: str) -> tuple[str, ...]:
        """The factors but for these."""
        return tuple(factor for factor in self.factors if factor not in factors)

    @cached_property
    def cells(self) -> tuple[Run, ...]:
        """Finished and missing cells, ordered by setting and seed."""
        return tuple(sort_runs([*self.runs, *self.missing], self.factors))

    @property
    def searched(self) -> tuple[Run, ...]:
        """The runs whose trajectory could be read."""
        return tuple(run for run in self.runs if run.trajectory is not None)

    def label(self, run: Run, factors: Iterable[str] | None = None) -> str:
        """A run's setting for people: `single, sink, T = 4 ms`."""
        factors = self.factors if factors is None else factors
        return ", ".join(show_value(factor, run.config.get(factor)) for factor in factors)

    def read_table(self) -> LatencyTable | None:
        """The lookup table that the runs share; None where no run has kept it."""
        for run in self.runs:
            with tempfile.TemporaryDirectory() as folder:
                path = _fetch(run, "latency_table.json", self.tracking_uri, Path(folder))
                if path is not None:
                    return LatencyTable.load(path)
        return None

    def read_architecture(self, run: Run) -> Architecture | None:
        """The network that a run derived at its end; None where it has not kept it."""
        with tempfile.TemporaryDirectory() as folder:
            path = _fetch(run, "architecture.json", self.tracking_uri, Path(folder))
            return None if path is None else Architecture.load(path)


def tracking_uri_of(out_dir: Path) -> str:
    """The MLflow store of a launch's folder, or the one that the environment names.

    Raises:
        UserError: the folder holds no store.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    path = out_dir.absolute() / "mlflow.db"
    if not path.is_file():
        raise UserError(
            f"{path}: no MLflow store; give --out the folder of a launch, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{path}"


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
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        experiment_id = _find_experiment(client, name)
        all_runs = [_record(run) for run in _search_all(client, experiment_id)]
    except MlflowException as error:
        raise UserError(f"{tracking_uri}: cannot read this MLflow store: {_one_line(error)}") from None
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
    notices += [f"run {run.name} ({run.short_id}): {run.problem}" for run in runs if run.problem]
    notices += [f"missing: {run.name} ({run.short_id}): {run.outcome}" for run in missing]
    return Experiment(
        name=name,
        experiment_id=experiment_id,
        tracking_uri=tracking_uri,
        provenance=provenance,
        runs=tuple(runs),
        missing=tuple(missing),
        training=tuple(run for run in all_runs if run.kind == "train" and run.status == "FINISHED"),
        notices=tuple(notices),
    )


def read_run(run: MlflowRun, tracking_uri: str) -> Run:
    """One run of MLflow with its files."""
    return _read_files([_record(run)], tracking_uri)[0]


def _find_experiment(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    names = [experiment.name for experiment in client.search_experiments()]
    names = get_close_matches(name, names, n=3, cutoff=0.0)
    raise UserError(f"experiment '{name}': there is none; the nearest names: {', '.join(names)}")


def _search_all(client: MlflowClient, experiment_id: str) -> list[MlflowRun]:
    runs: list[MlflowRun] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


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


def sort_runs(runs: Iterable[Run], factors: Iterable[str]) -> list[Run]:
    """The runs by setting, then seed."""
    order = (*factors, SEED)
    return sorted(runs, key=lambda run: [_sort_key(value) for value in run.setting(order)])


def varying_fields(runs: Sequence[Run]) -> tuple[str, ...]:
    """Config fields that differ between runs and make a difference, the seed excepted."""
    fields = dict.fromkeys(name for run in runs for name in run.config)
    return tuple(
        name
        for name in fields
        if name != SEED and name not in _NOT_A_SETTING and len({run.config.get(name) for run in runs}) > 1
    )


def _sort_key(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    # Baselines first: single before bi, skip before sink.
    return (1, 0.0, {"single": "a", "skip": "a"}.get(str(value), str(value)))


def _read_files(runs: Sequence[Run], tracking_uri: str) -> list[Run]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(_NUM_DOWNLOADS if any(_is_remote(run) for run in runs) else 1) as pool,
    ):
        return list(pool.map(lambda run: _with_files(run, tracking_uri, Path(folder) / run.run_id), runs))


def _with_files(run: Run, tracking_uri: str, folder: Path) -> Run:
    problems = []
    trajectory = epochs = None
    path = _fetch(run, "trajectory.npz", tracking_uri, folder)
    if path is None:
        problems.append("trajectory.npz is missing")
    else:
        try:
            loaded = Trajectory.load(path)
            _check_space(loaded)
            trajectory = loaded
        except UserError as error:
            problems.append(f"trajectory.npz: {_reason(error, path)}")
    path = _fetch(run, "metrics.csv", tracking_uri, folder)
    if path is None:
        problems.append("metrics.csv is missing")
    else:
        try:
            epochs = pd.read_csv(path, index_col="epoch")
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


def _is_remote(run: Run) -> bool:
    return urlparse(run.artifact_uri).scheme not in ("", "file")


def _fetch(run: Run, name: str, tracking_uri: str, folder: Path) -> Path | None:
    """The local path of an artifact, downloaded if need be; None where the run has none."""
    if not _is_remote(run):
        path = Path(url2pathname(urlparse(run.artifact_uri).path)) / name
        return path if path.is_file() else None
    if name not in {item.path for item in MlflowClient(tracking_uri).list_artifacts(run.run_id)}:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return Path(
        download_artifacts(
            run_id=run.run_id, artifact_path=name, dst_path=str(folder), tracking_uri=tracking_uri
        )
    )


def _count_outcomes(runs: Sequence[Run]) -> str:
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no runs at all"


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _reason(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
