"""Trials whose driver was killed: they end, and until they do they keep off the next launch's files."""

import psutil
import pytest

from tests.faults.launches import Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_trial_that_wakes_up_during_the_next_launch_spoils_nothing(site: Site) -> None:
    with site.start() as launch:
        launch.wait_until(lambda: all(journal.epochs for journal in site.journals()) and site.journals())
        orphans = launch.trials()
        for orphan in orphans:
            # As on a machine that swaps: it is there, and does not notice that its launch is gone.
            orphan.suspend()
        launch.kill_driver()
    with site.start() as again:
        again.wait_until(again.trials)
        alive = [orphan for orphan in orphans if orphan.is_running()]
        assert alive != []
        for orphan in alive:
            orphan.resume()
        _, alive = psutil.wait_procs(alive, timeout=60)
        assert alive == []
        assert again.wait() == 0, again.said
    site.assert_whole()
