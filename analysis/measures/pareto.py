"""Trade-off of accuracy against latency: Pareto front and hypervolume."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(latency: ArrayLike, accuracy: ArrayLike) -> NDArray[np.int64]:
    """Returns the indices of the points that no other dominates, by ascending latency.

    A point dominates another if it is no slower and no less accurate, and better in one of the
    two. Among equal points the first is kept; points with a NaN are left out.
    """
    latency_N, accuracy_N = np.asarray(latency, np.float64), np.asarray(accuracy, np.float64)
    front: list[int] = []
    for index in np.lexsort((-accuracy_N, latency_N)):
        if np.isnan(latency_N[index]) or np.isnan(accuracy_N[index]):
            continue
        if not front or accuracy_N[index] > accuracy_N[front[-1]]:
            front.append(int(index))
    return np.array(front, np.int64)


def hypervolume(
    latency: ArrayLike, accuracy: ArrayLike, worst_latency: float, worst_accuracy: float
) -> float:
    """Returns the area between the Pareto front and a worst point, in units of latency times accuracy.

    Points beyond the worst point do not count. Volumes compare only for one worst point.
    """
    latency_N, accuracy_N = np.asarray(latency, np.float64), np.asarray(accuracy, np.float64)
    front = pareto_front(latency_N, accuracy_N)
    area, level = 0.0, worst_accuracy
    for index in front:
        if latency_N[index] < worst_latency and accuracy_N[index] > level:
            area += (worst_latency - latency_N[index]) * (accuracy_N[index] - level)
            level = accuracy_N[index]
    return float(area)
