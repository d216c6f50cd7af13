"""Processes that are killed, and the same command again."""

import psutil
import pytest

from tests.faults.launches import Site
from tests.support.limits import PATIENCE_S

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def test_a_launch_that_nothing_hits_is_whole(site: Site) -> None:
    assert site.run().returncode == 0
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def test_a_trial_whose_process_is_killed_goes_on_by_itself(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_epochs(5)
        launch.trials()[0].kill()
        assert launch.wait() == 0, launch.said
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def test_after_the_driver_was_killed_the_same_command_finishes(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_epochs(5)
        _, alive = psutil.wait_procs(launch.kill_driver(), timeout=PATIENCE_S)
    assert alive == []
    assert site.status().count("interrupted") == 2
    again = site.run()
    assert again.returncode == 0, again.said
    assert again.said.count("resumes after epoch") == 2
    site.assert_whole()
    assert site.num_epochs_done_again() == 0
    assert sorted(run.info.status for run in site.runs("launch")) == ["FINISHED", "KILLED"]


def test_after_the_process_group_was_killed_the_same_command_finishes(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_epochs(3)
        launch.kill_group()
    assert site.run().returncode == 0
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


# Both train one supernet, 6 epochs that they share, and evaluate in 2 more each.
@pytest.mark.parametrize("after_epochs", [3, 13])
def test_methods_that_evaluate_networks_go_on_where_they_were_killed(site: Site, after_epochs: int) -> None:
    site.write_spec({"method": ["random", "gp_nas"]}, num_evaluations=20)
    with site.start() as launch:
        launch.wait_for_epochs(after_epochs)
        launch.kill_tree()
    assert site.run().returncode == 0
    site.assert_whole()
    assert site.num_epochs_done_again() == 0
