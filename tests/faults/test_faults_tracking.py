"""A tracking server that dies, comes back, stays away, or whose answers are lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.tracking.tracker import Tracker
from tests.faults.launches import Site
from tests.faults.server import Server, lossy_network

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def site_with_server(site: Site, server: Server) -> Site:
    site.tracking_uri = server.uri
    site.environment["MLFLOW_TRACKING_URI"] = server.uri
    return site


def test_a_server_that_is_killed_and_comes_back_lacks_nothing(site_with_server: Site, server: Server) -> None:
    site = site_with_server
    with site.start() as launch:
        launch.wait_for_epochs(4)
        server.kill()
        # Until all searches are done.
        launch.wait_until(lambda: [1 for journal in site.journals() if journal.end] == [1, 1])
        server.start()
        assert launch.wait() == 0, launch.said
    assert launch.said.count("MLflow is unreachable (") == 1, launch.said
    site.assert_whole()
    assert [run.info.status for run in site.runs("launch")] == ["FINISHED"]


def test_a_server_that_never_comes_back_stops_no_search_and_the_next_launch_tells_it(
    site_with_server: Site, server: Server
) -> None:
    site = site_with_server
    with site.start() as launch:
        launch.wait_for_epochs(4)
        server.kill()
        assert launch.wait() == 1, launch.said
    assert "2 of 2 searches are finished" in launch.said
    assert "the records of 2 searches are kept" in launch.said
    assert "Traceback" not in launch.said
    status = site.status()
    assert status.count("finished") == 2, status
    refused = site.run()
    assert refused.returncode == 2
    assert refused.said.count("\n") == 1, refused.said
    assert "MLFLOW_TRACKING_URI: cannot use" in refused.said
    server.start()
    again = site.run()
    assert again.returncode == 0, again.said
    assert "2 searches: 2 finished; 0 to run" in again.said
    site.assert_whole()
    assert [run.info.status for run in site.runs("launch")] == ["FINISHED"]


# MLflow's own retries send a request again that was done: a run is made twice, for a while.
@pytest.mark.parametrize(("num_retries", "loss"), [(0, 0.25), (3, 0.6)])
def test_requests_and_answers_that_are_lost_double_and_lose_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_retries: int, loss: float
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(num_retries))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    num_cells, num_epochs, num_failures = 8, 4, 0
    with lossy_network(server, seed=num_retries, loss=loss) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        tracker = Tracker("lossy", tmp_path)
        tracker._client = MlflowClient(uri)
        for cell in range(num_cells):
            folder = _make_folder(tmp_path, f"c{cell}", num_epochs)
            while folder.num_delivered(_run_id(server, f"c{cell}")) < len(folder.journal.events):
                try:
                    tracker.deliver(folder)
                except (MlflowException, OSError):
                    num_failures += 1
    assert num_failures >= num_cells // 2
    client = MlflowClient(server.uri)
    everything = client.search_runs([tracker.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.status for run in everything if run.info.lifecycle_stage == "active"} == {"FINISHED"}
    assert "RUNNING" not in {run.info.status for run in everything}
    assert num_retries == 0 or len(everything) > num_cells
    cells = [run.data.tags["tfnas.cell"] for run in everything if run.info.lifecycle_stage == "active"]
    assert sorted(cells) == [f"c{cell}" for cell in range(num_cells)]
    for run in everything:
        if run.info.lifecycle_stage == "active":
            history = client.get_metric_history(run.info.run_id, "loss")
            assert [(entry.step, entry.value) for entry in history] == [
                (1, 1),
                (2, 0.5),
                (3, 1 / 3),
                (4, 0.25),
            ]
            assert run.data.params == {"seed": "0"}
            assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["architecture.json"]


def _make_folder(out: Path, cell: str, num_epochs: int) -> CellFolder:
    folder = CellFolder(out / "cells" / cell)
    folder.describe(RunDescription(cell, cell, {"seed": "0"}, {"tfnas.cell": cell, "tfnas.kind": "search"}))
    folder.artifacts.mkdir()
    (folder.artifacts / "architecture.json").write_text("{}")
    folder.journal.start("launch")
    for epoch in range(1, num_epochs + 1):
        folder.journal.add_epoch(epoch, {"loss": 1 / epoch})
    folder.journal.finish("FINISHED")
    return folder


def _run_id(server: Server, cell: str) -> str:
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("lossy")
    runs = client.search_runs([experiment.experiment_id], f"tags.`tfnas.cell` = '{cell}'")
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id)).info.run_id if runs else ""
