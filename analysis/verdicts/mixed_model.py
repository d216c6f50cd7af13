"""Mixed models: a check of each claim by another method, which assumes normal errors.

The measure is explained by the factor of the claim, the setting of the other factors and its interaction
with the former, as fixed effects, and by the seed and its interaction with the factor as random ones.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.formula.api import mixedlm
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from analysis.measures.sign_flips import MIN_VALUES
from analysis.reading.experiment import Experiment
from analysis.verdicts.pairing import Contrast
from analysis.verdicts.verdict import Verdict


@dataclass(frozen=True)
class MixedEffect:
    """The contrast of a claim by a mixed model: the mean over the levels of the other factors.

    Attributes:
        mean: None if the model could not be fitted.
        interval: 95 %, by the normal distribution; None if the model did not converge.
        p_value: two-sided; None if the model did not converge.
        problem: why not to trust it; empty if there is no reason.
    """

    mean: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    num_trials: int
    problem: str = ""


def fit_mixed_model(verdict: Verdict, experiment: Experiment) -> MixedEffect | None:
    """Fits the model of a claim.

    None while the verdict is pending, with fewer than 7 seeds, and for claims that are about several fields
    or pair trials by latency.
    """
    claim = verdict.claim
    is_simple = len(claim.treated) == 1 and claim.match == "setting"
    if not is_simple or not verdict.is_due or len(verdict.comparison.complete_seeds) < MIN_VALUES:
        return None
    others = Contrast.of(claim).others(experiment)
    rows = [
        {
            "value": verdict.comparison.value_of(run),
            "is_treated": float(side == 0),
            "seed": str(each.seed),
            # Fields that vary together, such as objective and weight, have no separate effects.
            "setting": str(run.setting(others)),
        }
        for each in verdict.comparison.complete_seeds
        for pair in each.pairs
        for side, run in enumerate(pair)
    ]
    frame = pd.DataFrame(rows)
    if frame["setting"].nunique() == 1:
        return _fit("value ~ is_treated", frame, None)
    # Several pairs of a seed are no replicates: the effect may differ from seed to seed.
    return _fit("value ~ is_treated * C(setting, Sum)", frame, "~is_treated")


def _fit(formula: str, frame: pd.DataFrame, random_effects: str | None) -> MixedEffect:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = mixedlm(formula, frame, groups=frame["seed"], re_formula=random_effects)
            fitted = model.fit(reml=True)
            low, high = fitted.conf_int().loc["is_treated"]
            mean, p_value = float(fitted.params["is_treated"]), float(fitted.pvalues["is_treated"])
        # The covariance of a model that fits exactly, such as one of equal values, is singular.
        except (np.linalg.LinAlgError, ValueError) as error:
            return MixedEffect(None, None, None, len(frame), f"not fitted: {error}")
    if not fitted.converged:
        # Standard errors where the optimizer stopped say nothing.
        return MixedEffect(mean, None, None, len(frame), "did not converge")
    is_at_bound = any(issubclass(one.category, ConvergenceWarning) for one in caught)
    problem = "a random effect is at its bound, 0" if is_at_bound else ""
    return MixedEffect(mean, (float(low), float(high)), p_value, len(frame), problem)


def mixed_effects(verdicts: list[Verdict], experiment: Experiment) -> Mapping[str, MixedEffect]:
    """Fits the models of all claims that have one, by the name of the claim."""
    fitted = {one.name: fit_mixed_model(one, experiment) for one in verdicts}
    return {name: effect for name, effect in fitted.items() if effect is not None}
