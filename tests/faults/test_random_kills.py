"""Twenty random moments at which a launch is killed, and twenty results that must be the uninterrupted ones.

`make test-slow` runs it. The moments follow from the seed: so many epochs of the grid done, and a
fraction of a second.
"""

import random
import time
from pathlib import Path

import pytest

from tests.faults.launches import NUM_EPOCHS, Site

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

GRID = {"sampling": ["single", "bi"], "seed": [0, 1]}
NUM_ROUNDS = 20
_LONGEST_DELAY_S = 0.5
# Later the launch may be over before it is killed.
_MOST_EPOCHS = 4 * NUM_EPOCHS - 4


@pytest.mark.parametrize("seed", range(NUM_ROUNDS))
def test_killed_at_a_random_moment_and_launched_again_is_never_having_been_killed(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    site = Site(tmp_path, grid=GRID)
    after_epochs, delay_s = rng.randint(0, _MOST_EPOCHS), rng.uniform(0, _LONGEST_DELAY_S)
    with site.start() as launch:
        launch.wait_for_line("to run")
        launch.wait_for_epochs(after_epochs)
        time.sleep(delay_s)
        assert launch.process.poll() is None, launch.said
        if seed % 2 == 0:
            launch.kill_tree()
            num_reported = site.num_epochs_done()
            again = site.run()
            assert again.returncode == 0, again.said
        else:
            launch.wait_until(launch.trials)
            num_reported = site.num_epochs_done()
            rng.choice(launch.trials()).kill()
            assert launch.wait() == 0, launch.said
    site.assert_whole()
    assert site.num_epochs_done_again() == 0
    print(f"seed {seed}: killed with {num_reported} epochs of {4 * NUM_EPOCHS} reported; equal")
