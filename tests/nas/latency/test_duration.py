"""How long it takes to measure a table is foreseen well enough to decide whether to wait for it."""

import pytest

from nas.latency.duration import foresee_duration_s
from nas.latency.measurement import MAX_DURATION_S
from nas.space.macro_space import SPACES, get_space


@pytest.mark.parametrize(("space", "measured_s"), [("micro", 8.8), ("paper", 78.0)])
def test_the_recorded_measurements_took_what_is_foreseen(space: str, measured_s: float) -> None:
    """Those of docs/latency.md, on a quiet machine."""
    low_s, high_s = foresee_duration_s(get_space(space), "cpu", batch_size=1, num_threads=1)
    assert low_s <= measured_s <= high_s


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_more_images_take_longer_more_threads_less_and_repeats_end_with_the_time(
    space: str, device_type: str
) -> None:
    def foreseen(batch_size: int | None, num_threads: int) -> tuple[float, float]:
        return foresee_duration_s(
            get_space(space), device_type, batch_size=batch_size, num_threads=num_threads
        )

    one, many, fast = foreseen(None, 1), foreseen(32, 1), foreseen(32, 4)
    for low_s, high_s in (one, many, fast):
        assert 0 < low_s <= high_s <= MAX_DURATION_S
    assert one <= many
    assert fast <= many
