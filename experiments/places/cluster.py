"""An existing Ray cluster: trials run wherever their resources are."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import ray
from ray.exceptions import AuthenticationError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from experiments.console import make_console, say
from experiments.places.resources import Resources, num_bundles
from nas.foundation.errors import UserError
from nas.search.search_identity import RESULTS_VERSION as SEARCH_RESULTS_VERSION
from nas.training.training import RESULTS_VERSION as TRAINING_RESULTS_VERSION

Result = TypeVar("Result")

_PATIENCE_S = 15.0
"""How long to wait for the head to answer, and for a node before a message says so."""


@contextmanager
def open_cluster(address: str, resources: Resources) -> Iterator["Cluster"]:
    """Connects to a cluster, which outlives the launch.

    Args:
        address: `HOST:PORT`, or `auto` for the cluster that this machine is a node of.

    Raises:
        UserError: the cluster is unreachable or runs other versions.
    """
    _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError, RuntimeError, ValueError) as error:
        raise UserError(f"--address: {address}: {_explain(error)}") from None
    try:
        cluster = Cluster(resources)
        cluster.check_version()
        yield cluster
    finally:
        ray.shutdown()


class Cluster:
    """The cluster that this process is connected to, as a place for trials.

    Args:
        resources: what a trial reserves.

    Attributes:
        bundle: what a trial reserves.
    """

    def __init__(self, resources: Resources) -> None:
        self.bundle = resources.bundle(on_cluster=True)

    def run(self, function: Callable[..., Result], *arguments: Any, alone: bool = False) -> Result:
        """Calls a function of this package on a node that could run a trial.

        Args:
            alone: whether to wait until it has the node to itself.

        Raises:
            UserError: the function raised it.
        """
        options = _as_options(self.bundle)
        if alone:
            node_id = self._wait(_this_node, (), options)
            (node,) = [node for node in _nodes() if node["NodeID"] == node_id]
            options = _as_options({name: node["Resources"].get(name, 0) for name in ("CPU", "GPU")})
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return self._wait(function, arguments, options)

    def num_slots(self) -> int:
        """Number of trials that the current nodes allow."""
        return sum(num_bundles(self.bundle, node["Resources"]) for node in _nodes())

    def ray(self) -> nullcontext[None]:
        """Does nothing: the cluster is running."""
        return nullcontext()

    def check_version(self) -> None:
        """Checks that a node computes the same results versions; every trial checks its own node again.

        Raises:
            UserError: the versions differ.
        """
        try:
            there = self.run(_results_versions)
        except RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"--address: a node cannot run tfnas ({reason}); install the same version on all nodes"
            ) from None
        if there != _results_versions():
            raise UserError(
                "--address: the nodes compute other results versions than this machine; install the same "
                "tfnas everywhere"
            )

    def _wait(
        self, function: Callable[..., Result], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Result:
        reference = ray.remote(_call).options(max_retries=0, **options).remote(function, *arguments)
        ready, _ = ray.wait([reference], timeout=_PATIENCE_S)
        if not ready and not any(num_bundles(self.bundle, node["Resources"]) for node in _nodes()):
            say(
                make_console(),
                f"Waiting for a node with {self.bundle}: no node of the cluster has these resources",
            )
        try:
            result: Result = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        return result


def _results_versions() -> tuple[int, int]:
    return SEARCH_RESULTS_VERSION, TRAINING_RESULTS_VERSION


def _check_answers(address: str) -> None:
    """Fails fast: Ray itself waits for a minute or longer if there is no head."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise UserError(f"--address: {address}; write HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address: {address}: nothing answers ({error}); use the port of `ray start --head`"
        ) from None


def _as_options(bundle: dict[str, float]) -> dict[str, Any]:
    custom = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0), "resources": custom}


def _call(function: Callable[..., Result], *arguments: Any) -> Result:
    return function(*arguments)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _this_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _explain(error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "ersion mismatch" in reason:
        return f"{reason[:300]}; install the cluster's versions here"
    return (
        f"cannot connect ({reason[:200]}); run the launch on a node of the cluster, with the cluster's token "
        "(RAY_AUTH_TOKEN, or ~/.ray/auth_token)"
    )
