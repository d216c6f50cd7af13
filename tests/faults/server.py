"""An MLflow server on loopback that can die and come back, and a network that loses its answers."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import requests

from tests.support.limits import PATIENCE_S


class Server:
    """`mlflow server` with SQLite; keeps its port and its store while it is dead.

    Args:
        folder: for its store and its artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        artifacts = ["--artifacts-destination", str(self._folder / "server-artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        log = (self._folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *address],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert time.monotonic() < end, (self._folder / "server.log").read_text()
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            parent = psutil.Process(self._process.pid)
            for process in [*parent.children(recursive=True), parent]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.RequestException:
            return False


@contextmanager
def lossy_network(server: Server, *, seed: int, loss: float) -> Iterator[str]:
    """A way to a server that loses requests and, as often, the answers to requests that were done.

    Args:
        loss: share of the requests that are lost, before or after they were done.

    Returns:
        The address of its near end.
    """
    rng = random.Random(seed)

    class Way(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fate = rng.random()
            if fate < loss / 2:
                return self._cut()
            url = server.uri + self.path
            answer = requests.request(
                self.command, url, data=body, headers=_end_to_end(self.headers), timeout=60
            )
            if fate < loss:
                return self._cut()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)
            return None

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    near_end = ThreadingHTTPServer(("127.0.0.1", 0), Way)
    threading.Thread(target=near_end.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{near_end.server_port}"
    finally:
        near_end.shutdown()
        near_end.server_close()


def _end_to_end(headers: object) -> dict[str, str]:
    assert hasattr(headers, "items")
    return {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
