"""Slices of a study: each objective along each field, with rank correlations.

Shapes: N complete points that have the field.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.reading.study_record import Field, RecordedObjective, StudyRecord

_MAX_EXACT = 7
"""Up to so many points, all orders are enumerated (5,040); Student's t is far off with so few."""


@dataclass(frozen=True)
class Slice:
    """An objective along one field, over the complete points that have the field.

    Attributes:
        positions_N: values of the field; the index of the choice if it has choices.
        numbers_N: numbers of the points.
        rho: Spearman's rank correlation; NaN for choices, for fewer than 3 points, or if field or
            objective does not vary.
        p_value: of rho, two-sided, assuming independent points, corrected by Holm's method over the
            slices of the study that have a rho; NaN without a rho.
    """

    field: Field
    objective: RecordedObjective
    positions_N: NDArray[np.float64]
    values_N: NDArray[np.float64]
    numbers_N: NDArray[np.int64]
    rho: float
    p_value: float


def slice_study(study: StudyRecord) -> list[list[Slice]]:
    """Returns the slices of a study: one row per objective, one column per field."""
    rows = [[_slice(study, one, along) for along in study.fields] for one in study.objectives]
    p_values = [one.p_value for row in rows for one in row if math.isfinite(one.rho)]
    corrected = iter(multipletests(p_values, method="holm")[1] if p_values else ())
    return [
        [replace(one, p_value=float(next(corrected))) if math.isfinite(one.rho) else one for one in row]
        for row in rows
    ]


def _slice(study: StudyRecord, objective: RecordedObjective, along: Field) -> Slice:
    """One slice, with p not yet corrected."""
    points = study.complete[study.complete[along.name].notna()]
    values_N = points[objective.metric].to_numpy(np.float64)
    rho = p_value = math.nan
    if along.choices is not None:
        places = {choice: place for place, choice in enumerate(along.choices)}
        positions_N = np.array([places[str(choice)] for choice in points[along.name]], np.float64)
    else:
        positions_N = points[along.name].to_numpy(np.float64)
        if len(points) > 2 and np.ptp(positions_N) > 0 and np.ptp(values_N) > 0:
            rho, p_value = _correlate(positions_N, values_N)
    numbers_N = points["number"].to_numpy(np.int64)
    return Slice(along, objective, positions_N, values_N, numbers_N, rho, p_value)


def _correlate(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[float, float]:
    """Spearman's rho and its two-sided p."""
    found = stats.spearmanr(x_N, y_N)
    if len(x_N) > _MAX_EXACT:
        return float(found.statistic), float(found.pvalue)
    rank_x_N, rank_y_N = stats.rankdata(x_N), stats.rankdata(y_N)
    # For given ranks, rho grows with the sum of their products.
    exact = stats.permutation_test(
        (rank_x_N - rank_x_N.mean(),),
        lambda x, axis: np.sum(x * (rank_y_N - rank_y_N.mean()), axis=axis),
        permutation_type="pairings",
        n_resamples=math.factorial(_MAX_EXACT),
        vectorized=True,
    )
    return float(found.statistic), float(exact.pvalue)
