"""The README's way to look at a store: MLflow's own page on the SQLite file of a launch."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from mlflow import MlflowClient


def test_mlflow_ui_opens_the_store_of_a_launch(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(uri).create_experiment("some-experiment")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("mlflow"), "ui", "--backend-store-uri", uri]
    server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"], cwd=tmp_path)
    try:
        endpoint = "ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=some-experiment"
        page = _get(f"http://127.0.0.1:{port}/{endpoint}")
        assert '"some-experiment"' in page
    finally:
        server.terminate()
        server.wait(30)


def _get(url: str, timeout_s: float = 120) -> str:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
