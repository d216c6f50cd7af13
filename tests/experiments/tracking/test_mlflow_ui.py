"""MLflow's own server: what a browser shows of a launch, and a password in its address."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis.reading.mlflow_pages import experiment_page, how_to_look, run_page
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.tracking.saved_views import LAUNCHES, SavedView, save_view
from experiments.tracking.tracker import Tracker
from tests.support.browser import open_browser
from tests.support.limits import PATIENCE_S

NAMES = ("bi_random-s0-sink-T4", "bi_random-s1-sink-T4", "single-s0-sink-T4")
VIEW = SavedView.of_cells("search", ["sampling"])


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


@pytest.fixture(scope="module")
def launched(address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of an experiment with a launch of three searches."""
    _get(f"http://{address}/health")
    out = tmp_path_factory.mktemp("launched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        tracker = Tracker("launched", out)
        for view in (VIEW, LAUNCHES):
            save_view(tracker.uri, tracker.experiment_id, view)
        launch = tracker.start_launch("launch 2026-01-01", "spec.yaml", "base: {}\n")
        for name in NAMES:
            folder = CellFolder(out / "cells" / name)
            params = {"sampling": name.split("-")[0], "seed": name.split("-")[1][1:]}
            folder.describe(RunDescription(name, name, params, {"tfnas.cell": name, "tfnas.kind": "search"}))
            folder.artifacts.mkdir()
            folder.journal.start(launch)
            for epoch in (1, 2, 3):
                folder.journal.add_epoch(epoch, {"val_accuracy": 0.1 * epoch, "derived_latency_ms": 4.25})
            folder.journal.finish("FINISHED")
            tracker.deliver(folder)
        tracker.end_launch(launch, "FINISHED")
    return tracker.experiment_id


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


def test_the_link_of_a_launch_opens_on_its_searches_with_settings_and_results(
    browser: Any, address: str, launched: str
) -> None:
    (line,) = how_to_look(f"http://{address}", launched, "search")
    page = browser.new_page(viewport={"width": 1920, "height": 800})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(line.removeprefix("see them at "))
    for name in NAMES:
        page.get_by_text(name, exact=True).wait_for()
    for text in ("val_accuracy", "sampling", "seed", "4.25"):
        page.get_by_text(text, exact=True).first.wait_for()
    assert page.get_by_text("launch 2026-01-01").count() == 0
    page.goto(line.removeprefix("see them at ") + "&compareRunsMode=CHART")
    page.locator(".js-plotly-plot .scatterlayer").first.wait_for()


def test_clicks_lead_from_searches_to_their_launch_and_its_artifacts(
    browser: Any, address: str, launched: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(experiment_page(f"http://{address}", launched, "search"))
    page.get_by_text(NAMES[0], exact=True).wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Searches").click()
    page.get_by_text("Launches", exact=True).click()
    page.locator("a", has_text="launch 2026-01-01").first.click()
    page.get_by_text("Artifacts").first.click()
    page.get_by_text("spec.yaml").first.wait_for()


def test_without_the_view_its_link_shows_launches_and_not_the_overview_of_traces(
    browser: Any, address: str, launched: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(experiment_page(f"http://{address}", launched))
    page.get_by_text("launch 2026-01-01").first.wait_for()


def test_the_link_of_a_run_shows_its_metrics(browser: Any, address: str, launched: str) -> None:
    client = MlflowClient(f"http://{address}")
    run, *_ = client.search_runs([launched], f"attributes.run_name = '{NAMES[0]}'")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(run_page(f"http://{address}", launched, run.info.run_id))
    page.get_by_text("derived_latency_ms", exact=True).first.wait_for()


def test_a_view_that_a_person_changed_is_kept(address: str, launched: str) -> None:
    client, tag = MlflowClient(f"http://{address}"), f"mlflow.sharedViewState.{VIEW.key}"

    def saved() -> str:
        return str(client.get_experiment(launched).tags[tag])

    before = saved()
    save_view(f"http://{address}", launched, VIEW)
    assert saved() == before
    other = SavedView.of_cells("search", ["sampling", "depth"])
    save_view(f"http://{address}", launched, other)
    assert json.loads(json.loads(saved())["state"]) == other.state
    mine = json.dumps({**json.loads(saved()), "updatedAt": 9e12, "name": "mine"})
    client.set_experiment_tag(launched, tag, mine)
    save_view(f"http://{address}", launched, VIEW)
    assert saved() == mine
    client.set_experiment_tag(launched, tag, before)


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
