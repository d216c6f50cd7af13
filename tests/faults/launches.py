"""Launches as processes of their own, the faults that hit them, and what must hold afterwards.

Whatever hits a launch, once it was run again its result is that of a search that nothing ever hit:
here of `run_search` called by hand, without Ray, MLflow or checkpoints.
"""

import csv
import fcntl
import io
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from rich.console import Console

from experiments.cells.journal import Journal
from experiments.launching.status import print_status
from experiments.specs.grid_file import load_grid
from nas.config import SearchConfig
from nas.foundation.checkpoint import find_checkpoints
from nas.foundation.uris import sqlite_uri
from nas.latency.table import LatencyTable
from nas.search.records import EpochRecord, Trajectory
from nas.search.search import run_search
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space
from tests.support.limits import PATIENCE_S
from tests.support.tiny import make_dense_table

EXPERIMENT = "faulty"
NUM_EPOCHS = 6
# The cells share a warm-up.
GRID = {"sampling": ["single", "bi"]}
BASE = {
    "space": "micro",
    "max_train_images": 60,
    "batch_size": 8,
    "augmentation": "crop_flip",
    "target_latency_ms": "50%",
    "latency_table": "table.json",
    "num_epochs": NUM_EPOCHS,
    "num_warmup_epochs": 2,
}
_NOT_A_RESULT = "epoch_seconds"


class Site:
    """A folder with a spec, its lookup table and an output folder.

    Args:
        out: the output folder, if it is not to be in the folder.
    """

    def __init__(self, folder: Path, *, grid: dict[str, Any] | None = None, out: Path | None = None) -> None:
        self.folder = folder
        self.use(out or folder / "out")
        self.spec = folder / "spec.yaml"
        self.environment: dict[str, str] = {}
        make_dense_table(get_space("micro")).save(folder / "table.json")
        self._make_store()
        self.write_spec(grid or GRID)

    def use(self, out: Path) -> None:
        """Takes another output folder from now on."""
        self.out = out
        self.tracking_uri = sqlite_uri(out / "mlflow.db")

    def _make_store(self) -> None:
        """Makes the store's tables as a launch would; that takes seconds, so it is done once and copied."""
        if not _empty_store:
            with TemporaryDirectory() as folder:
                MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
                _empty_store.append((Path(folder) / "mlflow.db").read_bytes())
        self.out.mkdir()
        (self.out / "mlflow.db").write_bytes(_empty_store[0])

    def recover_store(self) -> None:
        """Undoes what a process that was killed had half written, as does whoever opens the file first."""
        connection = sqlite3.connect(self.out / "mlflow.db")
        connection.execute("SELECT COUNT(*) FROM runs")
        connection.close()

    def write_spec(self, grid: dict[str, Any], **base: Any) -> None:
        """Writes the spec anew, with another grid or other fields."""
        content = {"experiment": EXPERIMENT, "base": BASE | base, "grid": grid}
        self.spec.write_text(yaml.safe_dump(content))

    def start(self, *options: str, has_terminal: bool = False, wrapper: Sequence[str] = ()) -> "Launch":
        """Starts `tfnas launch`."""
        tfnas = [sys.executable, "-c", "from experiments.cli.main import main; main()"]
        command = [*wrapper, *tfnas, "launch", str(self.spec), "--out", str(self.out), *options]
        return Launch(command, self, has_terminal)

    def run(self, *options: str, wrapper: Sequence[str] = ()) -> "Launch":
        """Runs `tfnas launch` to its end."""
        with self.start(*options, wrapper=wrapper) as launch:
            launch.wait()
        return launch

    def journals(self) -> list[Journal]:
        """What is on disk of each cell that was ever begun."""
        return [Journal(path) for path in sorted(self.out.glob("cells/*/journal.jsonl"))]

    def num_epochs_done(self) -> int:
        """Epochs that are in a journal."""
        return sum(len(journal.epochs) for journal in self.journals())

    def checkpoints(self) -> list[list[Path]]:
        """The checkpoints of each cell, oldest first."""
        return [find_checkpoints(folder) for folder in sorted(self.out.glob("cells/*/checkpoints"))]

    def runs(self, kind: str) -> list[Run]:
        """The runs of a kind (`search` or `launch`), in tracking."""
        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        return list(client.search_runs([experiment.experiment_id], f"tags.`tfnas.kind` = '{kind}'"))

    def num_epochs_done_again(self) -> int:
        """How many epochs were reported and yet computed again: they took another time."""
        num_again = 0
        for journal in self.journals():
            times_s = _read_metrics(journal.path.parent / "artifacts")
            for epoch, event in journal.epochs.items():
                num_again += event.metrics[_NOT_A_RESULT] != times_s[epoch - 1][_NOT_A_RESULT]
        return num_again

    def forget(self, runs: list[Run]) -> None:
        """Deletes runs in tracking."""
        for run in runs:
            MlflowClient(self.tracking_uri).delete_run(run.info.run_id)

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Every file there is, with its size and time of change."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        stats = {str(path.relative_to(self.folder)): path.stat() for path in files}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}

    def status(self) -> str:
        """The states that `tfnas launch --status` prints; it must leave everything as it is."""
        self.recover_store()
        before = self.snapshot()
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", self.environment.get("MLFLOW_TRACKING_URI", ""))
            print_status(load_grid(self.spec), self.out, Console(file=printed, width=200))
        after = self.snapshot()
        assert {name for name in before | after if before.get(name) != after.get(name)} == set()
        # Without what to do next, which also has words like `failed`.
        lines = [line for line in printed.getvalue().splitlines() if not line.startswith("to ")]
        return "\n".join(lines)

    def assert_whole(self) -> None:
        """Every cell is one finished run with all epochs once, as if nothing had happened."""
        client = MlflowClient(self.tracking_uri)
        runs = self.runs("search")
        grid = load_grid(self.spec)
        with grid.place(None) as place:
            cells = grid.cells(self.out, place, str)
        assert sorted(run.data.tags["tfnas.cell"] for run in runs) == sorted(cell.hash for cell in cells)
        experiment_id = runs[0].info.experiment_id
        unended = client.search_runs([experiment_id], "status = 'RUNNING'", run_view_type=ViewType.ALL)
        assert [run.info.run_name for run in unended] == []
        for cell in cells:
            (run,) = (run for run in runs if run.data.tags["tfnas.cell"] == cell.hash)
            assert run.info.status == "FINISHED", run.data.tags
            assert run.data.params == {name: str(value) for name, value in cell.config.model_dump().items()}
            _assert_equal_results(client, run, _uninterrupted(cell.config.model_dump_json()))


class Launch:
    """A `tfnas launch` that is running, in a session and process group of its own; a context.

    Args:
        has_terminal: whether it has a terminal of its own, on which Ctrl-C can be pressed.
    """

    def __init__(self, command: list[str], site: Site, has_terminal: bool) -> None:
        self._site = site
        self._chunks: list[bytes] = []
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment |= {"OMP_NUM_THREADS": "1"} | site.environment
        self._master, slave = pty.openpty() if has_terminal else os.pipe()
        self.process = subprocess.Popen(
            command,
            stdin=slave if has_terminal else subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal if has_terminal else None,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_tree()

    @property
    def said(self) -> str:
        """All that it has printed so far."""
        return b"".join(self._chunks).decode(errors="replace")

    @property
    def returncode(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.returncode
        assert code is not None
        return int(code)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Waits for its end, and for all that it printed; returns the exit code."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.said}") from None
        self._reader.join(5)
        return self.returncode

    def wait_until(self, is_so: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
        """Waits for something to happen while it is running."""
        end = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.poll() is None, f"it ended before that:\n{self.said}"
            assert time.monotonic() < end, f"it never happened:\n{self.said}"
            time.sleep(0.02)

    def wait_for_epochs(self, num_epochs: int) -> None:
        """Waits until so many epochs are done, in all cells together."""
        self.wait_until(lambda: self._site.num_epochs_done() >= num_epochs)

    def wait_for_both(self) -> None:
        """Waits until both searches of `GRID` have an epoch done."""
        self.wait_until(lambda: [1 for journal in self._site.journals() if journal.epochs] == [1, 1])

    def wait_for_line(self, text: str) -> None:
        """Waits until it has printed something."""
        self.wait_until(lambda: text in self.said)

    def tree(self) -> list[psutil.Process]:
        """It and all processes below it."""
        try:
            driver = psutil.Process(self.process.pid)
            return [driver, *driver.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def trials(self) -> list[psutil.Process]:
        """The processes that run trials."""
        return [process for process in self.tree() if _is_trial(process)]

    def kill_driver(self) -> list[psutil.Process]:
        """SIGKILL to the driver alone; returns the processes that ran its trials."""
        trials = self.trials()
        self.process.kill()
        self.process.wait()
        return trials

    def kill_tree(self) -> None:
        """SIGKILL to the driver and all below it."""
        for process in self.tree():
            _kill(process)
        self.process.wait()

    def kill_group(self) -> None:
        """SIGKILL to the process group, as a batch system does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def press_ctrl_c(self) -> None:
        """Ctrl-C on its terminal: the kernel sends SIGINT to the whole foreground process group."""
        os.write(self._master, b"\x03")

    def _read(self) -> None:
        # An error is how a terminal ends whose last process is gone.
        with suppress(OSError):
            while chunk := os.read(self._master, 65536):
                self._chunks.append(chunk)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _is_trial(process: psutil.Process) -> bool:
    try:
        return "ImplicitFunc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


_empty_store: list[bytes] = []
_results: dict[str, list[EpochRecord]] = {}


def _uninterrupted(config_json: str) -> list[EpochRecord]:
    """The records of a search that nothing hits; run once for all tests of a process."""
    config = SearchConfig.model_validate_json(config_json)
    key = config.model_copy(update={"latency_table": "any"}).model_dump_json()
    if key not in _results:
        _results[key] = list(run_search(config, table=LatencyTable.load(config.latency_table)))
    return _results[key]


def _assert_equal_results(client: MlflowClient, run: Run, expected: list[EpochRecord]) -> None:
    artifacts = Path(client.download_artifacts(run.info.run_id, ""))
    trajectory = Trajectory.load(artifacts / "trajectory.npz")
    for name, array in vars(Trajectory.of(trajectory.space, trajectory.depth, expected)).items():
        np.testing.assert_array_equal(getattr(trajectory, name), array, err_msg=name)
    assert [_without_times(row) for row in _read_metrics(artifacts)] == [
        _without_times({"epoch": float(record.epoch), **record.metrics}) for record in expected
    ]
    _assert_equal_evaluations(artifacts / "evaluations.csv", expected)
    for name in {name for record in expected for name in record.metrics}:
        history = client.get_metric_history(run.info.run_id, name)
        steps = sorted(entry.step for entry in history)
        assert steps == [record.epoch for record in expected if name in record.metrics], name
        if name != _NOT_A_RESULT:
            values = {entry.step: entry.value for entry in history}
            of_search = {r.epoch: r.metrics[name] for r in expected if name in r.metrics}
            assert values == of_search, name


def _assert_equal_evaluations(path: Path, expected: list[EpochRecord]) -> None:
    evaluations = [each for record in expected for each in record.evaluations]
    assert path.exists() == bool(evaluations)
    if evaluations:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["evaluation"]) for row in rows] == [each.number for each in evaluations]
        assert [float(row["val_accuracy"]) for row in rows] == [each.val_accuracy for each in evaluations]
        networks = [Architecture.model_validate_json(row["architecture"]) for row in rows]
        assert networks == [each.architecture for each in evaluations]


def _read_metrics(artifacts: Path) -> list[dict[str, float]]:
    with (artifacts / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != _NOT_A_RESULT}


def damage(path: Path, *, cut_bytes: int = 0, flip_at: int | None = None) -> None:
    """Cuts bytes off a file's end, or flips a bit of it."""
    content = bytearray(path.read_bytes())
    if flip_at is not None:
        content[flip_at] ^= 1
    path.write_bytes(content[: len(content) - cut_bytes])


def free_bytes(folder: Path) -> int:
    """Space that is left where a folder is."""
    return shutil.disk_usage(folder).free
