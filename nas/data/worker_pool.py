"""Processes that decode images ahead of the batch that is needed next."""

import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.util import get_temp_dir
from typing import TYPE_CHECKING, Self, TypeVar
from unittest.mock import patch

import torch
from torch import multiprocessing

from nas.foundation.errors import UserError
from nas.foundation.socket_folder import find_socket_folder

if TYPE_CHECKING:
    from nas.config import SearchConfig, TrainConfig

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_DEFAULT_WORKERS = 8
"""More workers by default would fill the memory of large machines, and no GPU trains that fast."""

_START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""Both make workers children of the pool's process, which they watch."""

_NUM_AHEAD_PER_WORKER = 2
_WATCH_INTERVAL_S = 1.0


class WorkerPool:
    """Worker processes that several streams of tasks share. They start with the first task.

    They end when the pool is closed or dropped, or when its own process ends in whatever way.

    Args:
        num_workers: 0 computes every task in the process itself, when its result is needed.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._executor: ProcessPoolExecutor | None = None

    @classmethod
    def of(cls, config: "SearchConfig | TrainConfig") -> "WorkerPool":
        """The pool that a config asks for."""
        if config.num_data_workers is not None:
            return cls(config.num_data_workers)
        return cls(default_num_workers(config.num_threads))

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
        """Yields each task with its result, in order; computes a few tasks ahead.

        Args:
            function: of a module, since it runs in another process; tensors come back in shared memory.

        Raises:
            UserError: a worker process died.
        """
        if not self.num_workers:
            yield from ((task, function(task)) for task in tasks)
            return
        ahead: deque[tuple[Task, Future[Result]]] = deque()
        remaining = iter(tasks)
        try:
            ahead.extend(self._submit(function, remaining, _NUM_AHEAD_PER_WORKER * self.num_workers))
            while ahead:
                task, future = ahead.popleft()
                result = future.result()
                ahead.extend(self._submit(function, remaining, 1))
                yield task, result
        except BrokenProcessPool:
            self.close()
            raise UserError(
                f"num_data_workers: {self.num_workers}; a worker process was killed, most likely because "
                "memory (or /dev/shm) ran out; lower num_data_workers or batch_size, then rerun to resume"
            ) from None
        finally:
            for _, future in ahead:
                future.cancel()

    @contextmanager
    def closed_on_error(self) -> Iterator[Self]:
        """Within it an exception closes the pool: whoever would close it later never gets it."""
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the worker processes and waits for them; another task would start new ones."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def _submit(
        self, function: Callable[[Task], Result], tasks: Iterator[Task], num: int
    ) -> Iterator[tuple[Task, "Future[Result]"]]:
        for task in islice(tasks, num):
            if self._executor is None:
                self._executor = self._start()
            yield task, self._executor.submit(function, task)

    def _start(self) -> ProcessPoolExecutor:
        _keep_sockets_short()
        executor = ProcessPoolExecutor(
            self.num_workers,
            mp_context=multiprocessing.get_context(_START_METHOD),
            initializer=_begin_worker,
            initargs=(os.getpid(),),
        )
        # Without waiting: garbage may be collected in the thread that would have to be waited for.
        weakref.finalize(self, executor.shutdown, wait=False, cancel_futures=True)
        return executor


def default_num_workers(num_threads: int) -> int:
    """Workers where a config leaves the number open: the cores that `num_threads` leaves, at most 8.

    Processes that torchrun started on this machine share its cores. None where workers would run the
    script of a notebook user again, which needs a `__main__` guard for that.
    """
    if _START_METHOD != "fork":
        return 0
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(num_cores // num_processes - num_threads, 0), MAX_DEFAULT_WORKERS)


def _keep_sockets_short() -> None:
    """Chooses the folder through whose sockets workers hand over tensors; they inherit it."""
    folder = find_socket_folder(tempfile.gettempdir(), "pymp-12345678/listener-12345678")
    if folder is None:
        raise UserError(
            f"TMPDIR: {tempfile.gettempdir()}: too long for the sockets of worker processes; set TMPDIR to a "
            "shorter folder, or num_data_workers: 0"
        )
    with patch.object(tempfile, "tempdir", folder):
        get_temp_dir()


def _begin_worker(parent_id: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent decides, and closes the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(parent_id,), daemon=True).start()


def _end_with_parent(parent_id: int) -> None:
    """A killed parent closes nothing, and workers would wait for tasks forever."""
    while os.getppid() == parent_id:
        time.sleep(_WATCH_INTERVAL_S)
    os._exit(1)
