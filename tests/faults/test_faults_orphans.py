"""Trials whose driver was killed: the next launch's trials keep off their files until they are gone."""

import time

import psutil
import pytest
from filelock import FileLock

from tests.faults.launches import Site
from tests.support.limits import PATIENCE_S

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def test_trials_that_sleep_while_their_driver_is_killed_spoil_nothing_when_they_wake_up(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        orphans = launch.trials()
        for orphan in orphans:
            # As on a machine that swaps: it is there, and does not notice that its launch is gone.
            orphan.suspend()
        launch.kill_driver()
    with site.start() as again:
        again.wait_until(again.trials)
        for orphan in orphans:
            if orphan.is_running():  # mostly its parent has killed it
                orphan.resume()
        _, alive = psutil.wait_procs(orphans, timeout=PATIENCE_S)
        assert alive == []
        assert again.wait() == 0, again.said
    site.assert_whole()


def test_a_trial_waits_for_one_that_outlives_its_launch(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        launch.kill_tree()
    # What a process holds that still works in the folder.
    held = [FileLock(journal.path.parent / ".lock") for journal in site.journals()]
    for lock in held:
        lock.acquire(timeout=PATIENCE_S)
    before = site.checkpoints()
    with site.start() as again:
        again.wait_until(lambda: max(_num_starts(site)) == 2)
        time.sleep(10)
        assert site.checkpoints() == before
        for lock in held:
            lock.release()
        assert again.wait() == 0, again.said
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def _num_starts(site: Site) -> list[int]:
    return [sum(event.kind == "start" for event in journal.events) for journal in site.journals()]
