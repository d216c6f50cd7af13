"""Tracker: the only writer to MLflow, from journals of cells to runs.

An experiment has one parent run per launch and one child run per cell, found by the tag `tfnas.cell`.
Delivery is idempotent: every metric carries the time of its first report, and MLflow merges metrics that
agree in key, step, time and value.
"""

import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from experiments import __version__
from experiments.cells.cell_folder import CellFolder
from experiments.cells.journal import Event
from experiments.cells.origin import origin_tags
from experiments.tracking.dataset_inputs import inputs_of
from experiments.tracking.moved_store import ARTIFACTS, point_artifacts_here
from experiments.tracking.notes import note_of_cell, note_on_run
from experiments.tracking.own_launches import LAUNCH_ID_TAG, OwnLaunches
from experiments.tracking.store_access import (
    default_file,
    default_uri,
    moving_artifacts,
    open_store,
    reaching,
    search_runs,
    tracking_uri,
)
from experiments.tracking.tracked_cells import (
    FAILURE_TAG,
    HEALTH_TAG,
    HEALTHY,
    PARENT_TAG,
    REGISTERS_TAG,
    REGISTRATION_FILE,
    REGISTRATION_TAG,
    SUPERSEDED_TAG,
    TrackedCell,
    check_active,
    read_cells,
)
from nas.foundation.errors import UserError
from nas.foundation.uris import redact
from nas.foundation.validation import read_json
from nas.search.health import HealthCheck

_MAX_METRICS_PER_BATCH = 1000
_FINDINGS_TAG = "tfnas.health_findings"
_HOST_TAG = "tfnas.host"
_ATTEMPT_TAG = "tfnas.attempted_ms"
"""When the last attempt of a cell started, in ms since 1970."""


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
        self._is_in_folder = self.uri == default_uri(out)
        if self._is_in_folder:
            point_artifacts_here(default_file(out))
        self._launches = OwnLaunches(out, owns_store=self._is_in_folder)
        self._client = open_store(self.uri)
        self._run_ids: dict[str, str] = {}
        self._launch_ids: dict[str, str] = {}
        with reaching(self.uri):
            self.experiment_id = self._find_or_create_experiment(experiment)

    def cells(self) -> dict[str, TrackedCell]:
        """All cells of the experiment, by hash.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with reaching(self.uri):
            return read_cells(self._client, self.experiment_id)

    def check_unclaimed(self, kind: str, cells: Collection[str]) -> None:
        """Checks that no launch into another folder runs, or is going to run, one of these cells.

        Call it once these cells are registered: of two launches that begin at once, at least one then sees
        the other.

        Args:
            kind: of the cells.
            cells: their hashes.

        Raises:
            UserError: one does; or the tracking server is unreachable.
        """
        with reaching(self.uri):
            for run in self._search(f"tags.`{REGISTERS_TAG}` = '{kind}' and attributes.status = 'RUNNING'"):
                if _launch_id(run) in self._launches:
                    continue
                registered = self._read_registration(run.info.run_id)
                common = [registered[cell] for cell in cells if cell in registered]
                if common:
                    where = f"{run.data.tags.get('tfnas.out')} on {run.data.tags.get(_HOST_TAG, 'a machine')}"
                    raise UserError(
                        f"--out: {self._out}: a launch into {where} runs {len(common)} of these cells, among "
                        f"them {common[0]}; wait for it; if it was killed, start it there again, or end run "
                        f"{run.info.run_id} in MLflow"
                    )

    def _read_registration(self, run_id: str) -> dict[str, str]:
        """Names of the cells that a launch registered, by hash."""
        with TemporaryDirectory() as folder:
            with moving_artifacts():
                path = self._client.download_artifacts(run_id, REGISTRATION_FILE, folder)
            content = read_json(Path(path), "what a launch registered")
        return {cell: str(about["name"]) for cell, about in content["cells"].items()}

    def start_launch(self, name: str, file_name: str, text: str, more_tags: Mapping[str, str] = {}) -> str:
        """Creates the parent run of a launch, with its YAML file as an artifact; returns its id.

        Args:
            file_name: of the YAML file.
            text: of the YAML file, as it was checked.

        Raises:
            UserError: the tracking server is unreachable.
        """
        launch_id = self._launches.begin()
        tags = {
            "tfnas.kind": "launch",
            "tfnas.version": __version__,
            LAUNCH_ID_TAG: launch_id,
            # For people: where to look. Nothing depends on it.
            "tfnas.out": str(self._out),
            _HOST_TAG: socket.gethostname(),
            **origin_tags(f"tfnas launch {file_name}"),
        }
        with reaching(self.uri):
            run = self._client.create_run(self.experiment_id, tags=tags | dict(more_tags), run_name=name)
            run_id = str(run.info.run_id)
            self._launch_ids[run_id] = launch_id
            try:
                self._log_spec(run_id, file_name, text)
            except BaseException:
                self.end_launch(run_id, "FAILED")
                raise
        return run_id

    def _log_spec(self, run_id: str, file_name: str, text: str) -> None:
        """Logs a YAML file, whose URIs may have passwords."""
        with moving_artifacts():
            self._client.log_text(run_id, redact(text), file_name)

    def register(self, run_id: str, text: str, tags: Mapping[str, str]) -> None:
        """Adds what a launch registers to its run.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with reaching(self.uri):
            with moving_artifacts():
                self._client.log_text(run_id, text, REGISTRATION_FILE)
            # Last, so that the tags mean complete.
            self._client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()], synchronous=True)

    def last_registration(self, kind: str) -> tuple[str, str] | None:
        """The launch that was the last to register cells of a kind, and the SHA-256 of what it registered.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with reaching(self.uri):
            run = next(self._search(f"tags.`{REGISTERS_TAG}` = '{kind}'"), None)
            return (str(run.info.run_id), str(run.data.tags.get(REGISTRATION_TAG))) if run else None

    def end_launch(self, run_id: str, status: str) -> None:
        """Closes the parent run of a launch; if that is impossible now, `close_dead_launches` does it."""
        self._launches.end(self._launch_ids[run_id], status)
        with suppress(MlflowException):
            self._client.set_terminated(run_id, status)

    def open_study(self, name: str, file_name: str, text: str, params: dict[str, str]) -> str:
        """Creates or reopens the parent run of a study into this output folder; returns its id.

        Args:
            file_name: of the YAML file.
            text: of the YAML file, as it was checked.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with reaching(self.uri):
            found = self._search(f"tags.`tfnas.study` = '{name}'")
            own = next((run for run in found if _launch_id(run) in self._launches), None)
            if own:
                run_id = str(own.info.run_id)
                self._launch_ids[run_id] = _launch_id(own)
                self._log_spec(run_id, file_name, text)
                self._client.update_run(run_id, status="RUNNING")
                return run_id
            run_id = self.start_launch(f"study {name}", file_name, text, {"tfnas.study": name})
            self._client.log_batch(run_id, params=[Param(*item) for item in params.items()])
            return run_id

    def add_files(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """Adds files to the artifacts of a run, in a folder if one is given.

        Raises:
            MlflowException, OSError: the server or its artifact store is unreachable.
        """
        with moving_artifacts():
            for path in paths:
                self._client.log_artifact(run_id, str(path), folder)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Adds metrics to a run."""
        now_ms = time.time_ns() // 1_000_000
        entries = [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entries, synchronous=True)

    def close_dead_launches(self) -> None:
        """Closes runs that killed launches into this output folder left RUNNING, wherever it was then.

        Only the launch that holds the lock of the folder may call it.

        Raises:
            UserError: the tracking server is unreachable.
        """
        with reaching(self.uri):
            open_runs = list(self._search("attributes.status = 'RUNNING' and tags.`tfnas.kind` != ''"))
            launches = [run for run in open_runs if run.data.tags["tfnas.kind"] == "launch"]
            own = {run.info.run_id: _launch_id(run) for run in launches if _launch_id(run) in self._launches}
            for run in open_runs:
                if run.data.tags.get(PARENT_TAG) in own:
                    self._client.set_terminated(run.info.run_id, "KILLED")
            for run_id, launch_id in own.items():
                self._client.set_terminated(run_id, self._launches.status(launch_id))

    def deliver(self, folder: CellFolder) -> None:
        """Delivers the events of a cell's journal that MLflow lacks.

        Nothing of a cell whose run somebody deleted in MLflow, nor if a later attempt has taken its place.

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
            run_id = self._find_or_create_run(folder)
            if run_id is None:
                return
            self._run_ids[description.cell] = run_id
        num_delivered = folder.num_delivered(run_id)
        epochs: list[Event] = []
        for number, event in enumerate(folder.journal.events[num_delivered:num_events], num_delivered + 1):
            if event.kind == "epoch":
                epochs.append(event)
                continue
            self._log_epochs(run_id, epochs)
            epochs = []
            if event.kind == "start":
                self._reopen(run_id, event)
            else:
                self._end(run_id, folder.journal.events[:number], folder)
        self._log_epochs(run_id, epochs)
        if num_delivered < num_events:
            folder.confirm_delivery(run_id, num_events)

    def annotate(self, cell: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Adds later measurements to the run of a cell, in place of earlier ones.

        Raises:
            UserError: the tracking server is unreachable.
        """
        time_ms = time.time_ns() // 1_000_000
        with reaching(self.uri):
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
            location = (self._out / ARTIFACTS).as_uri() if self._is_in_folder else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another launch may have created it meanwhile.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        check_active(name, experiment.lifecycle_stage != "active", self.uri)
        return str(experiment.experiment_id)

    def _find_or_create_run(self, folder: CellFolder) -> str | None:
        """The run that is to hold a journal; None if there is to be none."""
        description, events = folder.description, folder.journal.events
        begun_ms = events[0].time_ms
        # A search that never began, for lack of memory, has no start.
        starts_ms = (event.time_ms for event in events if event.kind == "start")
        attempted_ms = max(starts_ms, default=begun_ms)
        runs = self._runs_of(description.cell)
        others = [run for run in runs if run.info.start_time != begun_ms]
        if any(run.info.status == "FINISHED" or _attempted_ms(run) > attempted_ms for run in others):
            return None
        if len(others) == len(runs):
            if folder.delivered_to and self._is_deleted(folder.delivered_to):
                return None
            # One request, so that no run lacks the tag by which it is found.
            self._client.create_run(
                self.experiment_id, begun_ms, tags=description.tags, run_name=description.name
            )
            runs = self._runs_of(description.cell)
        run, *doubles = (run for run in runs if run.info.start_time == begun_ms)
        # Doubles are left by a request that was repeated because its answer got lost; the journal has all
        # their data. Others are of another journal of the cell, in a folder that is gone or elsewhere: this
        # attempt is newer, and its epochs must not stand beside theirs.
        for old in (*doubles, *others):
            self._client.set_tag(old.info.run_id, SUPERSEDED_TAG, run.info.run_id)
            self._client.set_terminated(old.info.run_id, "KILLED")
            self._client.delete_run(old.info.run_id)
        run_id = str(run.info.run_id)
        inputs = inputs_of(description)
        if inputs and not (run.inputs and run.inputs.dataset_inputs):
            self._client.log_inputs(run_id, inputs)
        missing = set(description.params) - set(run.data.params)
        if missing:
            params = [Param(name, description.params[name]) for name in sorted(missing)]
            self._client.log_batch(run_id, params=params, synchronous=True)
        return run_id

    def _is_deleted(self, run_id: str) -> bool:
        """Whether somebody deleted a run; a store that never had it does not know."""
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return run.info.lifecycle_stage == "deleted" and SUPERSEDED_TAG not in run.data.tags

    def _runs_of(self, cell: str) -> list[Run]:
        """The runs of a cell, oldest first, always in the same order."""
        runs = self._search(f"tags.`tfnas.cell` = '{cell}'")
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _reopen(self, run_id: str, event: Event) -> None:
        tags = [RunTag(_ATTEMPT_TAG, str(event.time_ms))]
        tags += [RunTag(PARENT_TAG, event.launch)] if event.launch else []
        self._client.log_batch(run_id, tags=tags, synchronous=True)
        run = self._client.get_run(run_id)
        if FAILURE_TAG in run.data.tags:
            self._client.delete_tag(run_id, FAILURE_TAG)
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

    def _end(self, run_id: str, events: Sequence[Event], folder: CellFolder) -> None:
        event = events[-1]
        if event.outcome != "KILLED":
            folder.fetch_results()
        if event.outcome == "FINISHED":
            with moving_artifacts():
                self._client.log_artifacts(run_id, str(folder.artifacts))
            if checks := folder.health:
                tags = [RunTag(*item) for item in _health_tags(checks).items()]
                self._client.log_batch(run_id, tags=tags, synchronous=True)
        elif event.reason:
            self._client.set_tag(run_id, FAILURE_TAG, event.reason)
            if folder.traceback.is_file():
                self.add_files(run_id, [folder.traceback])
        note_on_run(self._client, run_id, note_of_cell(folder.description, events, folder.health))
        # Last, so that FINISHED means complete. MLflow has no pruned runs: the failure tag says so.
        status = "KILLED" if event.outcome == "PRUNED" else event.outcome
        self._client.set_terminated(run_id, status, event.time_ms)

    def _search(self, condition: str) -> Iterator[Run]:
        return search_runs(self._client, self.experiment_id, condition)


def _health_tags(checks: Sequence[HealthCheck]) -> dict[str, str]:
    findings = [check for check in checks if not check.is_healthy]
    if not findings:
        return {HEALTH_TAG: HEALTHY}
    names = ", ".join(check.name for check in findings)
    sentences = " ".join(f"{str(check)[:1].upper()}{str(check)[1:]}." for check in findings)
    return {HEALTH_TAG: f"unhealthy: {names}", _FINDINGS_TAG: sentences}


def _launch_id(run: Run) -> str:
    """The id of a launch; empty for launches of earlier versions."""
    return str(run.data.tags.get(LAUNCH_ID_TAG, ""))


def _attempted_ms(run: Run) -> int:
    return int(run.data.tags.get(_ATTEMPT_TAG, run.info.start_time))
