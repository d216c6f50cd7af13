"""Where trials run: a private Ray on this machine, or an existing cluster.

Whatever depends on where trials run (the device, its name and speed, the images) is looked up there, with
`Place.run`, and not on the machine of the launch.
"""

import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import torch

from experiments.places.resources import Resources, num_bundles
from nas.foundation.errors import RunWarning, UserError
from nas.foundation.socket_folder import find_socket_folder

Result = TypeVar("Result")

_ENVIRONMENT = {
    # The reporter that respects `verbose=0`.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A report of a failure lacks the metrics that a searcher expects.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_OBJECT_STORE_BYTES = 100_000_000
_UNITS = {"CPU": ("cores", "cpus_per_trial"), "GPU": ("GPUs", "gpus_per_trial")}


class Place(Protocol):
    """Where the trials of a launch run.

    Attributes:
        bundle: what a trial reserves, as Ray names it.
    """

    bundle: dict[str, float]

    def run(self, function: Callable[..., Result], *arguments: Any, alone: bool = False) -> Result:
        """Calls a function of this package where a trial would run.

        Args:
            alone: whether nothing else of Ray may run on that node meanwhile, as for timing.

        Raises:
            UserError: the function raised it.
        """
        ...

    def num_slots(self) -> int:
        """Number of trials that fit at a time, now."""
        ...

    def ray(self) -> AbstractContextManager[None]:
        """Keeps Ray running for trials while its context is open."""
        ...


class ThisMachine:
    """The cores and GPUs of this machine, independent of any Ray that runs here already.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: a trial needs more than the machine has, or Ray finds no folder for its files.
    """

    def __init__(self, resources: Resources, where: str) -> None:
        self._ray_folder = find_ray_folder()
        self.bundle = resources.bundle(on_cluster=False)
        self._has: dict[str, float] = {"CPU": num_cores(), "GPU": torch.cuda.device_count()}
        for name, (unit, field) in _UNITS.items():
            if self.bundle.get(name, 0) > self._has[name]:
                raise UserError(
                    f"{where}: resources.{field}: {getattr(resources, field)}; this machine has "
                    f"{self._has[name]} {unit}; lower it"
                )

    def run(self, function: Callable[..., Result], *arguments: Any, alone: bool = False) -> Result:
        """Calls the function; a launch does so before any trial starts."""
        try:
            return function(*arguments)
        finally:
            # Memory of a GPU that torch would keep for this process, and that trials may need.
            torch.cuda.empty_cache()

    def num_slots(self) -> int:
        """Number of trials that the cores and GPUs allow."""
        return num_bundles(self.bundle, self._has)

    @contextmanager
    def ray(self) -> Iterator[None]:
        """A private, quiet Ray that ends with its context, and leaves no files behind."""
        _prepare_environment()
        # Otherwise Ray writes a token into the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        if self._ray_folder != _wanted_ray_folder():
            warnings.warn(
                f"TMPDIR: {_wanted_ray_folder()}: Ray cannot write there, or its sockets would have too long "
                f"paths; its files go to {self._ray_folder}",
                RunWarning,
                stacklevel=2,
            )
        import ray

        # Its processes may write last lines while they end.
        with TemporaryDirectory(prefix="ray-", dir=self._ray_folder, ignore_cleanup_errors=True) as folder:
            ray.init(
                address="local",
                num_cpus=num_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=folder,
            )
            try:
                yield
            finally:
                ray.shutdown()


def find_ray_folder() -> str:
    """The folder for Ray's temporary files: the usual one if the paths of sockets in it are not too long.

    Batch systems make long ones.

    Raises:
        UserError: no folder is short and writable.
    """
    socket = f"ray-12345678/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    folder = find_socket_folder(_wanted_ray_folder(), socket)
    if folder is None:
        raise UserError(
            f"TMPDIR: {_wanted_ray_folder()}: Ray cannot write there, or its sockets would have too long "
            "paths; set RAY_TMPDIR to a shorter folder"
        )
    return folder


def _wanted_ray_folder() -> str:
    """Where Ray would write by itself."""
    return os.path.abspath(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def open_place(address: str | None, resources: Resources, where: str) -> Iterator[Place]:
    """This machine, or the cluster at an address.

    Args:
        address: `HOST:PORT` of a cluster, or `auto`; None for this machine.
        where: the YAML file, for errors.

    Raises:
        UserError: this machine is too small, or the cluster cannot be used.
    """
    if address is None:
        yield ThisMachine(resources, where)
        return
    _prepare_environment()
    from experiments.places.cluster import open_cluster

    with open_cluster(address, resources) as cluster:
        yield cluster


def _prepare_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Before `ray.init`, which warns that only this launch may use its Ray.
    logging.getLogger("ray").setLevel(logging.ERROR)
    # The state that Tune saves is not used; the journal reports a full disk.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
