"""Two Ray nodes on the loopback interface of this machine, each a tree of real processes."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.limits import PATIENCE_S

ROOT = Path(__file__).parents[2]


@dataclass
class Node:
    """One `ray start` and all that came of it."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL to every process of the node, as when its power goes."""
        root = psutil.Process(self.process.pid)
        processes = [*root.children(recursive=True), root]
        for process in processes:
            process.suspend()
        for process in [*root.children(recursive=True), *processes]:
            with_signal(process, signal.SIGKILL)
        self.process.wait()


@dataclass
class Nodes:
    """A head and a worker; `worker` is a resource that only the worker has."""

    address: str
    environment: dict[str, str]
    head: Node
    worker: Node


@contextmanager
def two_nodes(num_cpus: int = 1, num_gpus: int = 0, code: Path = ROOT) -> Iterator[Nodes]:
    """Starts them, with a token, and ends them.

    Args:
        num_cpus: that each says it has.
        num_gpus: that the worker says it has; Ray believes it.
        code: folder of the packages that they run.
    """
    port = free_port()
    # Ray's sockets have long names, and a socket's path may have 107 characters.
    temporary = Path("/tmp") / f"ray-{secrets.token_hex(4)}"
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    common = [
        f"--num-cpus={num_cpus}",
        "--object-store-memory=80000000",
        "--block",
        f"--temp-dir={temporary}",
    ]
    head = _start(
        [f"--port={port}", "--head", "--node-ip-address=127.0.0.3", "--include-dashboard=false", *common],
        environment,
    )
    try:
        _wait_for(port)
        worker = _start(
            [
                f"--address=127.0.0.3:{port}",
                "--node-ip-address=127.0.0.2",
                f"--num-gpus={num_gpus}",
                '--resources={"worker": 1}',
                *common[:-1],
            ],
            environment,
        )
        nodes = Nodes(f"127.0.0.3:{port}", environment, head, worker)
        try:
            _wait_for_nodes(nodes, 2)
            yield nodes
        finally:
            if worker.process.poll() is None:
                worker.kill()
    finally:
        head.kill()
        subprocess.run(["rm", "-rf", str(temporary)], check=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def with_signal(process: psutil.Process, number: int) -> None:
    """Sends a signal to a process that may be gone."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _start(arguments: list[str], environment: dict[str, str]) -> Node:
    ray = Path(sys.executable).with_name("ray")
    return Node(
        subprocess.Popen([str(ray), "start", *arguments], env=environment, stdout=subprocess.DEVNULL, cwd="/")
    )


def _wait_for(port: int, limit_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.3", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no server at port {port}")


def _wait_for_nodes(nodes: Nodes, number: int, limit_s: float = PATIENCE_S) -> None:
    code = f"""
import sys, time, ray
ray.init("{nodes.address}", log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < {number}:
    time.sleep(0.2)
"""
    subprocess.run([sys.executable, "-c", code], env=nodes.environment, check=True, timeout=limit_s)
