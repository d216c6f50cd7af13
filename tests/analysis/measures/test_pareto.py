import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures.pareto import hypervolume, pareto_front

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(points)
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[int, int]]):
    def is_dominated(point: tuple[int, int]) -> bool:
        return any(x <= point[0] and y >= point[1] and (x, y) != point for x, y in points)

    latency, accuracy = np.array(points).T
    front = pareto_front(latency, accuracy)
    assert {points[index] for index in front} == {point for point in points if not is_dominated(point)}
    assert (np.diff(latency[front]) > 0).all()


@settings(max_examples=80, deadline=None)
@given(points)
def test_the_hypervolume_is_the_number_of_unit_cells_that_some_point_dominates(
    points: list[tuple[int, int]],
):
    latency, accuracy = np.array(points).T
    cells = sum(
        any(latency[i] <= x and accuracy[i] >= y + 1 for i in range(len(points)))
        for x in range(8)
        for y in range(2, 10)
    )
    assert hypervolume(latency, accuracy, worst_latency=8, worst_accuracy=2) == pytest.approx(cells)


def test_points_that_are_not_known_are_left_out():
    assert pareto_front([1.0, np.nan, 3.0], [0.5, 0.9, np.nan]).tolist() == [0]
