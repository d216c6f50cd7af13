"""MLflow's own server: the README's way to look at a launch, and a password in its address."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.tracking.tracker import Tracker
from tests.support.limits import PATIENCE_S


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server on a store with `some-experiment`."""
    folder = tmp_path_factory.mktemp("server")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("some-experiment")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("mlflow"), "ui", "--backend-store-uri", uri]
    server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"], cwd=folder)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def test_mlflow_ui_opens_the_store_of_a_launch(address: str) -> None:
    endpoint = "ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=some-experiment"
    assert '"some-experiment"' in _get(f"http://{address}/{endpoint}")


def test_a_password_in_the_address_is_neither_printed_nor_stored(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _get(f"http://{address}/health")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hidden@{address}")
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(b"study: {storage: 'postgresql://me:hidden@host/db'} # mine\r\n")
    tracker = Tracker("some-experiment", tmp_path)
    run_id = tracker.start_launch("\x1b[2Jlaunch", spec.name, spec.read_bytes().decode())
    tracker.end_launch(run_id, "FINISHED")
    # MLflow prints the address of a run that ends, unless it is asked not to.
    printed = capfd.readouterr()
    assert "hidden" not in printed.out + printed.err
    assert "\x1b" not in printed.out + printed.err
    client = MlflowClient(f"http://{address}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "hidden" not in str(run.data.to_dictionary())
    logged = client.download_artifacts(run_id, "spec.yaml")
    assert Path(logged).read_bytes() == b"study: {storage: 'postgresql://***@host/db'} # mine\r\n"


def _get(url: str) -> str:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
