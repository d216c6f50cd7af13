"""Grids that grow, change, or are launched twice; searches that fail while others go on."""

import resource
from pathlib import Path

import psutil
import pytest

from tests.faults.launches import GRID, Launch, Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

DIVERGES, LEARNS = 1e30, 0.05


def test_a_launch_beside_another_one_of_the_same_grid_says_so_and_stops(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        trials = launch.trials()
        for trial in trials:
            # So that it is running for as long as this takes.
            trial.suspend()
        beside = site.run()
        assert beside.returncode == 2, beside.said
        assert len(beside.said.splitlines()) == 1
        assert "another launch is running there" in beside.said
        assert "running" in site.run("--status").said
        for trial in trials:
            trial.resume()
        assert launch.wait() == 0, launch.said
    site.assert_whole()


def test_only_a_cell_that_is_new_runs_and_what_changed_is_said(site: Site) -> None:
    assert site.run().returncode == 0
    before = {run.info.run_id: run.info.end_time for run in site.runs("search")}
    site.write_spec({"sampling": [*GRID["sampling"], "bi_min"]})
    assert site.status().count("missing") == 1
    again = site.run()
    assert again.returncode == 0, again.said
    assert "3 searches: 2 finished, 1 missing; 1 to run" in again.said
    site.assert_whole()
    after = {run.info.run_id: run.info.end_time for run in site.runs("search")}
    assert before.items() <= after.items()
    site.write_spec(GRID, weight_lr=LEARNS)
    status = site.status()
    assert status.count("missing") == 2, status
    assert status.count(f"changed: weight_lr 0.025 -> {LEARNS}") == 2, status


def test_a_search_that_diverges_fails_alone_and_only_it_is_retried(tmp_path: Path) -> None:
    site = Site(tmp_path, grid={"weight_lr": [DIVERGES, LEARNS]})
    launch = site.run()
    assert launch.returncode == 1, launch.said
    assert site.status().count("failed") == 1
    again = site.run("--retry-failed")
    assert again.returncode == 1, again.said
    assert "2 searches: 1 finished, 1 failed; 1 to run" in again.said
    assert sorted(run.info.status for run in site.runs("search")) == ["FAILED", "FINISHED"]
    # The one that learns is as if it had been alone.
    site.write_spec({"weight_lr": [LEARNS]})
    diverged = [run for run in site.runs("search") if run.info.status == "FAILED"]
    site.forget(diverged)
    site.assert_whole()


def test_a_search_without_memory_fails_alone_and_can_be_retried(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        trial = launch.trials()[0]
        limit = trial.memory_info().vms
        # From here on every allocation fails that needs pages.
        resource.prlimit(trial.pid, resource.RLIMIT_AS, (limit, limit))
        launch.wait()
    assert_one_failed_or_went_on(site, launch)


def test_a_search_whose_process_is_killed_time_and_again_fails_alone_and_can_be_retried(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        (victim, *_) = (Path(trial.cwd()).name for trial in launch.trials())

        def kill_and_look() -> bool:
            for trial in launch.trials():
                if _cell_of(trial) == victim:
                    trial.kill()
            return bool(_ends(site, victim))

        launch.wait_until(kill_and_look)
        assert launch.wait() == 1, launch.said
    assert "its process died" in launch.said
    assert "1 of 2 searches are finished" in launch.said
    assert site.status().count("failed") == 1
    again = site.run("--retry-failed")
    assert again.returncode == 0, again.said
    site.assert_whole()


def test_a_search_that_the_memory_monitor_kills_fails_with_that_reason_and_can_be_retried(site: Site) -> None:
    # Ray kills trials while more than so much of the machine's memory is in use: always.
    site.environment["RAY_memory_usage_threshold"] = "0.001"
    launch = site.run()
    assert launch.returncode == 1, launch.said
    assert launch.said.count("memory") >= 2, launch.said
    assert site.status().count("failed") == 2
    del site.environment["RAY_memory_usage_threshold"]
    again = site.run("--retry-failed")
    assert again.returncode == 0, again.said
    site.assert_whole()


def assert_one_failed_or_went_on(site: Site, launch: Launch) -> None:
    """An allocation that fails is an error in Python, or the end of the process in a library."""
    assert launch.returncode in (0, 1), launch.said
    if launch.returncode == 1:
        assert "1 of 2 searches are finished" in launch.said
        assert site.status().count("failed") == 1
        again = site.run("--retry-failed")
        assert again.returncode == 0, again.said
    site.assert_whole()


def _cell_of(trial: psutil.Process) -> str:
    try:
        return Path(trial.cwd()).name
    except psutil.Error:
        return ""


def _ends(site: Site, cell: str) -> bool:
    return any(journal.end for journal in site.journals() if journal.path.parent.name == cell)
