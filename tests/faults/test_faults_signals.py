"""Ctrl-C and SIGTERM, as a terminal and a batch system send them."""

import signal
import time

import pytest

from tests.faults.launches import Launch, Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

HOW_TO_RESUME = "interrupted; rerun the command to resume"


def count_interrupted(site: Site) -> int:
    """How many of the two searches are interrupted: on a slow machine one may be finished already."""
    status = site.status()
    num_interrupted = status.count("interrupted")
    assert num_interrupted >= 1, status
    assert num_interrupted + status.count("finished") == 2, status
    return num_interrupted


def assert_ended_in_order(site: Site, launch: Launch) -> None:
    assert launch.returncode == 130, launch.said
    assert launch.said.count(HOW_TO_RESUME) == 1, launch.said
    assert "Traceback" not in launch.said
    num_interrupted = count_interrupted(site)
    statuses = sorted(run.info.status for run in site.runs("search"))
    assert statuses == ["FINISHED"] * (2 - num_interrupted) + ["KILLED"] * num_interrupted
    assert [run.info.status for run in site.runs("launch")] == ["KILLED"]
    for journal, checkpoints in zip(site.journals(), site.checkpoints(), strict=True):
        # What was reported is saved: nothing of it is to be done again.
        assert int(checkpoints[-1].name.split("-")[1]) >= max(journal.epochs)


def assert_resumes(site: Site) -> None:
    num_interrupted = count_interrupted(site)
    again = site.run()
    assert again.returncode == 0, again.said
    assert again.said.count("resumes after epoch") == num_interrupted, again.said
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def test_ctrl_c_once_ends_in_order_and_the_same_command_continues(site: Site) -> None:
    with site.start(has_terminal=True) as launch:
        launch.wait_for_both()
        launch.press_ctrl_c()
        launch.wait()
    assert_ended_in_order(site, launch)
    assert_resumes(site)


def test_ctrl_c_twice_ends_at_once_and_the_same_command_continues(site: Site) -> None:
    with site.start(has_terminal=True) as launch:
        launch.wait_for_both()
        launch.press_ctrl_c()
        time.sleep(0.2)
        launch.press_ctrl_c()
        assert launch.wait() == 130, launch.said
    assert HOW_TO_RESUME in launch.said
    assert "Traceback" not in launch.said
    assert_resumes(site)


def test_ctrl_c_before_any_trial_runs_ends_in_order(site: Site) -> None:
    with site.start(has_terminal=True) as launch:
        launch.wait_for_line("2 to run")
        launch.press_ctrl_c()
        assert launch.wait() == 130, launch.said
    assert HOW_TO_RESUME in launch.said
    assert "Traceback" not in launch.said
    assert {run.info.status for run in site.runs("launch")} <= {"KILLED"}
    assert site.run().returncode == 0
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def test_sigterm_ends_in_order_and_the_same_command_continues(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        launch.process.terminate()
        launch.wait()
    assert_ended_in_order(site, launch)
    assert_resumes(site)


def test_after_sigterm_to_all_of_its_processes_the_same_command_continues(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        for process in launch.tree():
            process.send_signal(signal.SIGTERM)
        # Without its Ray it cannot end in order: Ray ends it after a minute.
        launch.wait()
    assert_resumes(site)
