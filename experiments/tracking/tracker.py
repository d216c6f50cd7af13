"""The one writer to MLflow: from cells' journals to runs, as often as it takes, never twice.

An experiment has one parent run a launch and one child run a cell, found by the tag `tfnas.cell`.
Delivering is idempotent: a metric carries the time at which it was first reported, and MLflow
keeps one of two that agree in key, step, time and value.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import RequestException

from experiments import __version__
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.journal import Event
from nas.foundation.errors import UserError
from nas.foundation.files import write_atomically

# It reports making its tables, at length.
logging.getLogger("mlflow").setLevel(logging.WARNING)
# It prints the traceback of what it raises besides.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

# A request that MLflow itself sends again may make a run twice, and for minutes nobody learns that the
# store is away: `Delivery` tries again instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

_MAX_METRICS_PER_BATCH = 1000
_FAILURE_TAG = "tfnas.failure"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrackedCell:
    """What tracking says of a cell.

    Attributes:
        status: in MLflow's words: RUNNING, FINISHED, FAILED or KILLED.
        failure: the reason, in one line, of FAILED.
    """

    run_id: str
    status: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]

    @property
    def launch(self) -> str | None:
        """The run of the launch that ran it last."""
        return self.tags.get(_PARENT_TAG)

    @property
    def failure(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        return self.tags.get(_FAILURE_TAG)


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _default_uri(out)


def read_tracked_cells(experiment: str, out: Path) -> dict[str, TrackedCell]:
    """Every cell of an experiment by its hash; makes neither a store nor an experiment.

    Raises:
        UserError: the store cannot be reached.
    """
    uri = tracking_uri(out)
    if uri == _default_uri(out) and not _default_file(out).is_file():
        return {}
    client = MlflowClient(uri)
    with _reaching(uri):
        found = client.get_experiment_by_name(experiment)
        return _read_cells(client, found.experiment_id) if found else {}


def require_server(uri: str) -> None:
    """Refuses a store that is a file of this machine.

    Raises:
        UserError: it is one.
    """
    if not uri.startswith(("http:", "https:", "postgresql", "mysql", "mssql", "databricks")):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is a file of this machine; a launch with --address is tracked by a "
            "server that outlives the machine: start one (docs/cluster.md) and set "
            "MLFLOW_TRACKING_URI=http://HOST:5000"
        )


class Tracker:
    """An experiment in MLflow; makes it where there is none.

    Args:
        experiment: its name.
        out: output folder, for the default store and its artifacts.

    Raises:
        UserError: the store cannot be reached, or the experiment was deleted in it.
    """

    def __init__(self, experiment: str, out: Path) -> None:
        self.uri = tracking_uri(out)
        self._out = out
        self._client = MlflowClient(self.uri)
        self._run_ids: dict[str, str] = {}
        with _reaching(self.uri):
            self.experiment_id = self._find_or_create_experiment(experiment)

    def cells(self) -> dict[str, TrackedCell]:
        """Every cell of the experiment by its hash.

        Raises:
            UserError: the store cannot be reached.
        """
        with _reaching(self.uri):
            return _read_cells(self._client, self.experiment_id)

    def folder_of_launch(self, run_id: str) -> str:
        """The output folder of a launch.

        Raises:
            UserError: the store cannot be reached.
        """
        with _reaching(self.uri):
            return str(self._client.get_run(run_id).data.tags.get("tfnas.out"))

    def start_launch(self, name: str, spec_path: Path, more_tags: Mapping[str, str] = {}) -> str:
        """Makes the parent run of a launch, the YAML file its artifact; returns its id.

        Raises:
            UserError: the store cannot be reached.
        """
        tags = {"tfnas.kind": "launch", "tfnas.version": __version__, "tfnas.out": str(self._out)}
        with _reaching(self.uri):
            run = self._client.create_run(self.experiment_id, tags=tags | dict(more_tags), run_name=name)
            self._client.log_artifact(run.info.run_id, str(spec_path))
        return str(run.info.run_id)

    def end_launch(self, run_id: str, status: str) -> None:
        """Closes the parent run of a launch; if the store is away, `close_dead_launches` does."""
        ending = self._ending(run_id)
        ending.parent.mkdir(exist_ok=True)
        write_atomically(ending, status.encode())
        try:
            self._client.set_terminated(run_id, status)
        except MlflowException:
            return
        ending.unlink()

    def open_study(self, name: str, spec_path: Path, params: dict[str, str]) -> str:
        """Makes, or opens again, the parent run of a study into this output folder; returns its id.

        Raises:
            UserError: the store cannot be reached.
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
        """Puts files on the run of a study, into a folder of its artifacts."""
        for path in paths:
            self._client.log_artifact(run_id, str(path), folder)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Puts numbers on the run of a study."""
        now_ms = time.time_ns() // 1_000_000
        entries = [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entries, synchronous=True)

    def close_dead_launches(self) -> None:
        """Closes what launches into this output folder left RUNNING when they, or the store, were gone.

        To be called by a launch that knows that no other one is running.

        Raises:
            UserError: the store cannot be reached.
        """
        with _reaching(self.uri):
            self._close_dead_launches()

    def _close_dead_launches(self) -> None:
        parents = [
            run
            for run in self._search("tags.`tfnas.kind` = 'launch' and attributes.status = 'RUNNING'")
            if run.data.tags.get("tfnas.out") == str(self._out)
        ]
        ids = {run.info.run_id for run in parents}
        children = self._search("tags.`tfnas.kind` != 'launch' and attributes.status = 'RUNNING'")
        orphans = [run for run in children if run.data.tags.get(_PARENT_TAG) in ids]
        for run in [*orphans, *parents]:
            ending = self._ending(run.info.run_id)
            status = ending.read_text() if ending.is_file() else "KILLED"
            self._client.set_terminated(run.info.run_id, status)
            ending.unlink(missing_ok=True)

    def _ending(self, run_id: str) -> Path:
        """The file that says how a launch ended, until the store knows."""
        return self._out / "launches" / run_id

    def deliver(self, folder: CellFolder) -> None:
        """Tells MLflow all that a cell's journal has and MLflow lacks.

        Raises:
            MlflowException, OSError: the store cannot be reached; to be tried again.
        """
        num_events = len(folder.journal.events)
        if num_events == 0:
            return
        try:
            self._deliver(folder, num_events)
        except (MlflowException, OSError):
            # Somebody may have deleted the run: the next time it is looked for, and made, again.
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
        """Adds to a cell's run what was measured after it; measured again, it takes the place of the old.

        Raises:
            UserError: the store cannot be reached.
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
                # Another launch may have made it meanwhile.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"experiment: '{name}' was deleted in {self.uri}; restore it there, or choose another name"
            )
        return str(experiment.experiment_id)

    def _find_or_create_run(self, description: RunDescription, start_time_ms: int) -> str:
        runs = self._runs_of(description.cell)
        if not runs:
            # One request, so that no run can be without the tag by which it is found again.
            self._client.create_run(
                self.experiment_id, start_time_ms, tags=description.tags, run_name=description.name
            )
            runs = self._runs_of(description.cell)
        run, *doubles = runs
        for double in doubles:
            # A request whose answer was lost, and that was sent again. All that is in it is in the journal.
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
        elif event.reason:
            self._client.set_tag(run_id, _FAILURE_TAG, event.reason)
            if folder.traceback.is_file():
                self._client.log_artifact(run_id, str(folder.traceback))
        # Last, so that FINISHED means complete. MLflow knows no pruned runs: the reason says so.
        status = "KILLED" if event.outcome == "PRUNED" else event.outcome
        self._client.set_terminated(run_id, status, event.time_ms)

    def _search(self, condition: str) -> Iterator[Run]:
        return search_runs(self._client, self.experiment_id, condition)


def _read_cells(client: MlflowClient, experiment_id: str) -> dict[str, TrackedCell]:
    runs = search_runs(client, experiment_id, "tags.`tfnas.kind` != 'launch'")
    # Oldest last, so that of two runs of a cell everybody takes the same one.
    return {
        run.data.tags["tfnas.cell"]: TrackedCell(
            run.info.run_id, run.info.status, run.info.run_name, dict(run.data.params), dict(run.data.tags)
        )
        for run in runs
        if "tfnas.cell" in run.data.tags
    }


def search_runs(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    """All runs of an experiment that meet a condition, the newest first."""
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
    """Within it a store that cannot be reached is the user's to mend."""
    try:
        yield
    except (MlflowException, RequestException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"MLFLOW_TRACKING_URI: cannot use {uri} ({reason}); start the server, or unset the variable"
        ) from None
