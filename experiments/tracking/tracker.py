"""Tracker: the only writer to MLflow, from journals of cells to runs.

An experiment has one parent run per launch and one child run per cell, found by the tag `tfnas.cell`.
Delivery is idempotent: every metric carries the time of its first report, and MLflow merges metrics that
agree in key, step, time and value.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import RequestException

from experiments import __version__
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.journal import Event
from nas.foundation.errors import UserError, first_line
from nas.foundation.files import write_atomically
from nas.search.health import HealthCheck

# MLflow would log the creation of its tables.
logging.getLogger("mlflow").setLevel(logging.WARNING)
# MLflow would also print the traceback of what it raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

# If MLflow itself repeats a request, it may create a run twice and hide for minutes that the server is
# unreachable: `Delivery` retries instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

REGISTRATION_FILE = "registration.json"
REGISTRATION_TAG = "tfnas.registration"
"""SHA-256 of the registration."""

REGISTERS_TAG = "tfnas.registers"
"""Kind of the registered cells."""

_MAX_METRICS_PER_BATCH = 1000
_HEALTH_TAG = "tfnas.health"
_FINDINGS_TAG = "tfnas.health_findings"
_HEALTHY = "healthy"
_FAILURE_TAG = "tfnas.failure"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrackedCell:
    """The run of a cell in MLflow.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
    """

    run_id: str
    status: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]

    @property
    def launch(self) -> str | None:
        """The run of the launch that ran the cell last."""
        return self.tags.get(_PARENT_TAG)

    @property
    def failure(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        return self.tags.get(_FAILURE_TAG)

    @property
    def is_healthy(self) -> bool | None:
        """Whether the search passed all health checks; None without any."""
        health = self.tags.get(_HEALTH_TAG)
        return None if health is None else health == _HEALTHY


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _default_uri(out)


def read_tracked_cells(experiment: str, out: Path) -> dict[str, TrackedCell]:
    """All cells of an experiment, by hash; creates neither a store nor an experiment.

    Raises:
        UserError: the tracking server is unreachable, or the experiment was deleted there.
    """
    uri = tracking_uri(out)
    if uri == _default_uri(out) and not _default_file(out).is_file():
        return {}
    client = MlflowClient(uri)
    with _reaching(uri):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return {}
        _check_active(found, uri)
        return _read_cells(client, found.experiment_id)


def require_server(uri: str) -> None:
    """Checks that the tracking store is not a file on this machine.

    Raises:
        UserError: it is.
    """
    if not uri.startswith(("http:", "https:", "postgresql", "mysql", "mssql", "databricks")):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is a file on this machine; a launch with --address needs a tracking "
            "server: start one (docs/cluster.md) and set MLFLOW_TRACKING_URI=http://HOST:5000"
        )


class Tracker:
    """An experiment in MLflow, created if there is none.

    Args:
        experiment: its name.
        out: output folder, for the default store and its artifacts.

    Raises:
        UserError: the tracking server is unreachable, or the experiment was deleted there.
    """

    def __init__(self, experiment: str, out: Path) -> None:
        self.uri = tracking_uri(out)
        self._out = out
        self._client = MlflowClient(self.uri)
        self._run_ids: dict[str, str] = {}
        with _reaching(self.uri):
            self.experiment_id = self._find_or_create_experiment(experiment)

    def cells(self) -> dict[str, TrackedCell]:
        """All cells of the experiment, by hash.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            return _read_cells(self._client, self.experiment_id)

    def folder_of_launch(self, run_id: str) -> str:
        """The output folder of a launch.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            return str(self._client.get_run(run_id).data.tags.get("tfnas.out"))

    def start_launch(self, name: str, spec_path: Path, more_tags: Mapping[str, str] = {}) -> str:
        """Creates the parent run of a launch, with the YAML file as its artifact; returns its id.

        Raises:
            UserError: the tracking server is unreachable.
        """
        tags = {"tfnas.kind": "launch", "tfnas.version": __version__, "tfnas.out": str(self._out)}
        with _reaching(self.uri):
            run = self._client.create_run(self.experiment_id, tags=tags | dict(more_tags), run_name=name)
            self._client.log_artifact(run.info.run_id, str(spec_path))
        return str(run.info.run_id)

    def register(self, run_id: str, text: str, tags: Mapping[str, str]) -> None:
        """Adds what a launch registers to its run.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            self._client.log_text(run_id, text, REGISTRATION_FILE)
            # Last, so that the tags mean complete.
            self._client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()], synchronous=True)

    def last_registration(self, kind: str) -> str | None:
        """The SHA-256 of what was registered last for cells of a kind; None if nothing was.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            run = next(self._search(f"tags.`{REGISTERS_TAG}` = '{kind}'"), None)
            return run.data.tags.get(REGISTRATION_TAG) if run else None

    def end_launch(self, run_id: str, status: str) -> None:
        """Closes the parent run of a launch; if that is impossible now, `close_dead_launches` does it."""
        ending = self._ending(run_id)
        ending.parent.mkdir(exist_ok=True)
        write_atomically(ending, status.encode())
        try:
            self._client.set_terminated(run_id, status)
        except MlflowException:
            return
        ending.unlink()

    def open_study(self, name: str, spec_path: Path, params: dict[str, str]) -> str:
        """Creates or reopens the parent run of a study into this output folder; returns its id.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            found = self._search(f"tags.`tfnas.study` = '{name}'")
            own = [run.info.run_id for run in found if run.data.tags.get("tfnas.out") == str(self._out)]
            if own:
                self._client.log_artifact(own[0], str(spec_path))
                self._client.update_run(own[0], status="RUNNING")
                return str(own[0])
            run_id = self.start_launch(f"study {name}", spec_path, {"tfnas.study": name})
            self._client.log_batch(run_id, params=[Param(*item) for item in params.items()])
            return run_id

    def add_files(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """Adds files to the artifacts of a run, in a folder if one is given."""
        for path in paths:
            self._client.log_artifact(run_id, str(path), folder)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Adds metrics to a run."""
        now_ms = time.time_ns() // 1_000_000
        entries = [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entries, synchronous=True)

    def close_dead_launches(self) -> None:
        """Closes runs that killed launches into this output folder left RUNNING.

        Only the launch that holds the lock of the folder may call it.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with _reaching(self.uri):
            open_runs = list(self._search("attributes.status = 'RUNNING'"))
            tags = {run.info.run_id: run.data.tags for run in open_runs}
            parents = {key for key, own in tags.items() if own.get("tfnas.out") == str(self._out)}
            orphans = [key for key, own in tags.items() if own.get(_PARENT_TAG) in parents]
            for run_id in [*orphans, *parents]:
                ending = self._ending(run_id)
                status = ending.read_text() if ending.is_file() else "KILLED"
                self._client.set_terminated(run_id, status)
                ending.unlink(missing_ok=True)

    def _ending(self, run_id: str) -> Path:
        """The file that records how a launch ended until MLflow knows it."""
        return self._out / "launches" / run_id

    def deliver(self, folder: CellFolder) -> None:
        """Delivers the events of a cell's journal that MLflow lacks.

        Raises:
            MlflowException, OSError: the server is unreachable; retry later.
        """
        try:
            if num_events := len(folder.journal.events):
                self._deliver(folder, num_events)
        except (MlflowException, OSError):
            # Somebody may have deleted the run: the next attempt looks for it, or creates it, again.
            self._run_ids.pop(folder.description.cell, None)
            raise

    def _deliver(self, folder: CellFolder, num_events: int) -> None:
        description = folder.description
        run_id = self._run_ids.get(description.cell)
        if run_id is None:
            run_id = self._find_or_create_run(description, folder.journal.events[0].time_ms)
            self._run_ids[description.cell] = run_id
        num_delivered = folder.num_delivered(run_id)
        epochs: list[Event] = []
        for event in folder.journal.events[num_delivered:num_events]:
            if event.kind == "epoch":
                epochs.append(event)
                continue
            self._log_epochs(run_id, epochs)
            epochs = []
            if event.kind == "start":
                self._reopen(run_id, event)
            else:
                self._end(run_id, event, folder)
        self._log_epochs(run_id, epochs)
        if num_delivered < num_events:
            folder.confirm_delivery(run_id, num_events)

    def annotate(self, cell: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Adds later measurements to the run of a cell, in place of earlier ones.

        Raises:
            UserError: the tracking server is unreachable.
        """
        time_ms = time.time_ns() // 1_000_000
        with _reaching(self.uri):
            (run, *_) = self._search(f"tags.`tfnas.cell` = '{cell}'")
            self._client.log_batch(
                run.info.run_id,
                metrics=[Metric(name, value, time_ms, 0) for name, value in metrics.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
                synchronous=True,
            )

    def _find_or_create_experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            is_default = self.uri == _default_uri(self._out)
            location = (self._out / "mlartifacts").as_uri() if is_default else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another launch may have created it meanwhile.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        _check_active(experiment, self.uri)
        return str(experiment.experiment_id)

    def _find_or_create_run(self, description: RunDescription, start_time_ms: int) -> str:
        runs = self._runs_of(description.cell)
        if not runs:
            # One request, so that no run lacks the tag by which it is found.
            self._client.create_run(
                self.experiment_id, start_time_ms, tags=description.tags, run_name=description.name
            )
            runs = self._runs_of(description.cell)
        run, *doubles = runs
        for double in doubles:
            # Left by a request that was repeated because its answer got lost; the journal has all its data.
            self._client.set_terminated(double.info.run_id, "KILLED")
            self._client.delete_run(double.info.run_id)
        run_id = str(run.info.run_id)
        missing = set(description.params) - set(run.data.params)
        if missing:
            params = [Param(name, description.params[name]) for name in sorted(missing)]
            self._client.log_batch(run_id, params=params, synchronous=True)
        return run_id

    def _runs_of(self, cell: str) -> list[Run]:
        """The runs of a cell, oldest first, always in the same order."""
        runs = self._search(f"tags.`tfnas.cell` = '{cell}'")
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _reopen(self, run_id: str, event: Event) -> None:
        tags = [RunTag(_PARENT_TAG, event.launch)] if event.launch else []
        self._client.log_batch(run_id, tags=tags, synchronous=True)
        run = self._client.get_run(run_id)
        if _FAILURE_TAG in run.data.tags:
            self._client.delete_tag(run_id, _FAILURE_TAG)
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")

    def _log_epochs(self, run_id: str, epochs: list[Event]) -> None:
        metrics = [
            Metric(name, value, event.time_ms, event.epoch or 0)
            for event in epochs
            for name, value in event.metrics.items()
        ]
        for start in range(0, len(metrics), _MAX_METRICS_PER_BATCH):
            batch = metrics[start : start + _MAX_METRICS_PER_BATCH]
            self._client.log_batch(run_id, metrics=batch, synchronous=True)

    def _end(self, run_id: str, event: Event, folder: CellFolder) -> None:
        if event.outcome != "KILLED":
            folder.fetch_results()
        if event.outcome == "FINISHED":
            self._client.log_artifacts(run_id, str(folder.artifacts))
            if checks := folder.health:
                tags = [RunTag(*item) for item in _health_tags(checks).items()]
                self._client.log_batch(run_id, tags=tags, synchronous=True)
        elif event.reason:
            self._client.set_tag(run_id, _FAILURE_TAG, event.reason)
            if folder.traceback.is_file():
                self._client.log_artifact(run_id, str(folder.traceback))
        # Last, so that FINISHED means complete. MLflow has no pruned runs: the failure tag says so.
        status = "KILLED" if event.outcome == "PRUNED" else event.outcome
        self._client.set_terminated(run_id, status, event.time_ms)

    def _search(self, condition: str) -> Iterator[Run]:
        return search_runs(self._client, self.experiment_id, condition)


def _check_active(experiment: Experiment, uri: str) -> None:
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"experiment: '{experiment.name}' was deleted in {uri}; restore it there, or choose another name"
        )


def _health_tags(checks: Sequence[HealthCheck]) -> dict[str, str]:
    findings = [check for check in checks if not check.is_healthy]
    if not findings:
        return {_HEALTH_TAG: _HEALTHY}
    names = ", ".join(check.name for check in findings)
    sentences = " ".join(f"{str(check)[:1].upper()}{str(check)[1:]}." for check in findings)
    return {_HEALTH_TAG: f"unhealthy: {names}", _FINDINGS_TAG: sentences}


def _read_cells(client: MlflowClient, experiment_id: str) -> dict[str, TrackedCell]:
    runs = search_runs(client, experiment_id, "tags.`tfnas.kind` != 'launch'")
    # Oldest last, so that everybody picks the same one of two runs of a cell.
    return {
        run.data.tags["tfnas.cell"]: TrackedCell(
            run.info.run_id, run.info.status, run.info.run_name, dict(run.data.params), dict(run.data.tags)
        )
        for run in runs
        if "tfnas.cell" in run.data.tags
    }


def search_runs(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    """All runs of an experiment that meet a condition, newest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], condition, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _default_file(out: Path) -> Path:
    return out.resolve() / "mlflow.db"


def _default_uri(out: Path) -> str:
    return f"sqlite:///{_default_file(out)}"


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """Turns an unreachable tracking server into a message for the user."""
    try:
        yield
    except (MlflowException, RequestException) as error:
        reason = first_line(error)
        raise UserError(
            f"MLFLOW_TRACKING_URI: cannot use {uri} ({reason}); start the server, or unset the variable"
        ) from None
