"""Mixed models: a check of each claim by another method, which assumes normal errors.

The measure is explained by the factor of the claim, the other factors and their interactions with it, as
fixed effects, and by the seed as a random one.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.formula.api import mixedlm
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from analysis.measures.measure import Numbers
from analysis.measures.sign_flips import MIN_VALUES
from analysis.reading.experiment import Experiment
from analysis.verdicts.verdict import Verdict


@dataclass(frozen=True)
class MixedEffect:
    """The contrast of a claim by a mixed model: the mean over the levels of the other factors.

    Attributes:
        interval: 95 %, by the normal distribution.
        problem: why not to trust it; empty if there is no reason.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    num_trials: int
    problem: str = ""


def fit_mixed_model(verdict: Verdict, experiment: Experiment, numbers: Numbers) -> MixedEffect | None:
    """Fits the model of a claim; None with fewer than 7 seeds, or for claims about several factors.

    The p-value is two-sided.
    """
    claim = verdict.claim
    if len(claim.treated) > 1 or len(verdict.comparison.complete_seeds) < MIN_VALUES:
        return None
    (factor,) = claim.treated
    others = experiment.other_factors(factor, *claim.within)
    seeds = {each.seed for each in verdict.comparison.complete_seeds}
    rows = [
        {
            "value": numbers[run.run_id][claim.measure],
            "treated": float(run.config.get(factor) == claim.treated[factor]),
            "seed": str(run.seed),
            **{f"x{place}": str(run.config.get(name)) for place, name in enumerate(others)},
        }
        for run in experiment.runs
        if run.seed in seeds
        and run.config.get(factor) in (claim.treated[factor], claim.baseline[factor])
        and all(run.config.get(name) == value for name, value in claim.within.items())
    ]
    frame = pd.DataFrame(rows).dropna()
    used = [f"C(x{place}, Sum)" for place in range(len(others)) if frame[f"x{place}"].nunique() > 1]
    return _fit(f"value ~ treated * ({' + '.join(used)})" if used else "value ~ treated", frame)


def _fit(formula: str, frame: pd.DataFrame) -> MixedEffect | None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fitted = mixedlm(formula, frame, groups=frame["seed"]).fit(reml=True)
            low, high = fitted.conf_int().loc["treated"]
            mean, p_value = float(fitted.params["treated"]), float(fitted.pvalues["treated"])
        # The covariance of a model that fits exactly, such as one of equal values, is singular.
        except (np.linalg.LinAlgError, ValueError) as error:
            return MixedEffect(
                float("nan"), (float("nan"),) * 2, float("nan"), len(frame), f"not fitted: {error}"
            )
    problems = {type(one.message).__name__ for one in caught if issubclass(one.category, ConvergenceWarning)}
    text = "the random effect of the seed is at its bound, 0" if problems else ""
    return MixedEffect(mean, (float(low), float(high)), p_value, len(frame), text)


def mixed_effects(
    verdicts: list[Verdict], experiment: Experiment, numbers: Numbers
) -> Mapping[str, MixedEffect]:
    """Fits the models of all claims that have one, by the name of the claim."""
    fitted = {one.name: fit_mixed_model(one, experiment, numbers) for one in verdicts}
    return {name: effect for name, effect in fitted.items() if effect is not None}
