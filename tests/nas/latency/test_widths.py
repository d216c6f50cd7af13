import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.latency.entry import interpolate
from nas.latency.widths import initial_widths, next_widths


def test_initial_widths_hold_both_ends_of_the_interval():
    assert initial_widths(32, 128) == [32, 57, 81, 105, 128]
    assert initial_widths(16, 18) == [16, 17, 18]
    assert initial_widths(7, 7) == [7]


def test_what_is_interpolated_holds_where_multiples_of_8_are_faster():
    every = np.arange(192, 1153)
    cost_ms = (1 + 0.001 * every) * np.where(every % 8 == 0, 0.9, 1.0)
    chosen = np.array(initial_widths(192, 1152))
    for _ in range(6):
        chosen = np.sort(np.append(chosen, next_widths(chosen, cost_ms[chosen - 192])[0][1]))
    errors = interpolate(chosen, cost_ms[chosen - 192], every) / cost_ms - 1
    assert np.median(np.abs(errors)) < 0.01


def test_the_next_width_lies_beside_the_kink_that_interpolation_missed():
    widths = np.array([100, 200, 300, 400, 500])
    step_ms = np.where(widths < 350, 1.0, 2.0)
    _, width = next_widths(widths, step_ms)[0]
    assert 200 < width < 500


def test_nothing_is_uncertain_about_a_straight_line():
    widths = np.array([10, 20, 30, 40])
    assert max(uncertainty for uncertainty, _ in next_widths(widths, 0.1 * widths)) < 1e-12


def test_adjacent_widths_have_no_next_width_between_them():
    assert next_widths(np.array([4, 5, 6]), np.array([1.0, 2.0, 2.0])) == []


def test_choosing_by_uncertainty_beats_even_spacing_on_staircases():
    rng = np.random.default_rng(0)
    every = np.arange(192, 1537)
    errors = []
    for _ in range(30):
        cost_ms = 0.2 + 0.001 * every
        for step, height_ms in zip(rng.integers(192, 1537, 2), rng.uniform(0.1, 0.5, 2), strict=True):
            cost_ms += height_ms * (every >= step)
        chosen = np.array(initial_widths(192, 1536))
        while len(chosen) < 17:
            chosen = np.sort(np.append(chosen, next_widths(chosen, cost_ms[chosen - 192])[0][1]))
        even = np.linspace(192, 1536, 17).round().astype(int)
        errors.append([_mean_error(cost_ms, every, widths) for widths in (chosen, even)])
    of_chosen, of_even = np.mean(errors, axis=0)
    assert of_chosen < 0.5 * of_even


def _mean_error(cost_ms, every, widths):
    return np.abs(interpolate(widths, cost_ms[widths - every[0]], every) / cost_ms - 1).mean()


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=12, unique=True).map(sorted),
    st.data(),
)
def test_interpolation_is_exact_at_measured_widths_and_between_its_neighbours(widths, data):
    latency_ms = data.draw(st.lists(st.floats(0.01, 10), min_size=len(widths), max_size=len(widths)))
    widths, latency_ms = np.array(widths), np.array(latency_ms)
    inside = np.arange(widths[0], widths[-1] + 1)
    curve_ms = interpolate(widths, latency_ms, inside)
    np.testing.assert_allclose(curve_ms[widths - widths[0]], latency_ms)
    right = np.searchsorted(widths, inside).clip(1)
    ends_ms = np.stack([latency_ms[right - 1], latency_ms[right]])
    assert (curve_ms >= ends_ms.min(0) - 1e-9).all()
    assert (curve_ms <= ends_ms.max(0) + 1e-9).all()
