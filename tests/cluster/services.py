"""Servers that a cluster needs, real ones, on the loopback interface: PostgreSQL, MLflow, S3."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cluster.ray_nodes import free_port
from tests.support.limits import PATIENCE_S

_PASSWORD = "tfnas"


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: Debian keeps them off the path."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *map(Path, filter(None, [shutil.which("initdb")])),
    ]
    return found[0].parent if found else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A server with an empty database; yields its URI. It refuses to run as root, so it runs as its user."""
    folder = Path(tempfile.mkdtemp(prefix="tfnas-postgres-"))
    port, user = free_port(), None
    (folder / "password").write_text(_PASSWORD)
    if os.getuid() == 0:
        user = "postgres" if _is_user("postgres") else "nobody"
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    data = folder / "data"
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "tfnas",
        "--auth=scram-sha-256",
        f"--pwfile={folder}/password",
    ]
    options = [
        "-D",
        data,
        "-p",
        str(port),
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
    ]
    try:
        subprocess.run(initdb, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with _running([programs / "postgres", *options], user=user, cwd=folder):
            uri = f"postgresql://tfnas:{_PASSWORD}@127.0.0.1:{port}/postgres"
            _wait_until(lambda: _answers_sql(uri), "PostgreSQL")
            # The driver by name: SQLAlchemy's default has changed.
            yield uri.replace("postgresql:", "postgresql+psycopg2:")
    finally:
        shutil.rmtree(folder)


@contextmanager
def mlflow_server(store_uri: str, folder: Path) -> Iterator[str]:
    """A tracking server over a store, with artifacts in a folder that it alone sees to; yields its URI."""
    port = free_port()
    arguments = [
        *("--backend-store-uri", store_uri, "--artifacts-destination", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    uri = f"http://127.0.0.1:{port}"
    with _running(
        [Path(sys.executable).with_name("mlflow"), "server", *arguments], cwd=folder, env=environment
    ):
        _wait_until(lambda: _answers_http(f"{uri}/health"), "MLflow")
        yield uri


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3, with the bucket `tfnas`; yields host and port."""
    import boto3

    port = free_port()
    with _running([Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]):
        url = f"http://127.0.0.1:{port}"
        _wait_until(lambda: _answers_http(url), "moto")
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="tfnas")
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(command: list[str | Path], **options: object) -> Iterator[None]:
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield
    finally:
        # MLflow's and PostgreSQL's servers are trees.
        processes = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for survivor in alive:
            survivor.kill()
        process.wait()


def _wait_until(is_there, name: str, limit_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + limit_s
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} does not answer")
        time.sleep(0.3)


def _answers_http(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _answers_sql(uri: str) -> bool:
    import psycopg2

    try:
        psycopg2.connect(uri).close()
    except psycopg2.OperationalError:
        return False
    return True


def _is_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())
