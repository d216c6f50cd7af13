"""Mixed models: each claim by another method, to check its verdict."""

from analysis.measures import MEASURES
from analysis.measures.measure import Numbers
from analysis.measures.summary import Summary
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError, for_grids
from analysis.tables.result_table import Column, ResultTable
from analysis.verdicts import judge
from analysis.verdicts.mixed_model import mixed_effects


@for_grids
def mixed_models_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each claim about one factor with at least 7 seeds."""
    verdicts = {one.name: one for one in judge(experiment, numbers)}
    found = mixed_effects(list(verdicts.values()), experiment)
    if not found:
        raise OutOfPlaceError("no claim about one factor has 7 seeds")
    return ResultTable(
        "mixed-models",
        "Appendix: mixed models",
        "A check of the verdicts by a linear mixed model: the factor of the claim, the setting of the other "
        "factors and its interaction with the former as fixed effects, the seed (and its interaction with "
        "the factor) as random ones. Effect: the mean over the other settings, with its 95 % interval. p is "
        "two-sided and not corrected; a model that did not converge has neither p nor interval. The model "
        "assumes normal errors, which the test of the verdict does not.",
        (
            Column("claim", "claim"),
            Column("measure", "measure"),
            Column("contrast", "difference"),
            Column("effect", "effect", 3),
            Column("p_value", "p"),
            Column("num_trials", "trials"),
            Column("problem", "problem"),
        ),
        tuple(
            (
                name,
                MEASURES[verdicts[name].claim.measure].heading,
                verdicts[name].claim.contrast,
                None if effect.mean is None else Summary(effect.num_trials, effect.mean, effect.interval),
                None if effect.p_value is None else float(f"{effect.p_value:.2g}"),
                effect.num_trials,
                effect.problem or "none",
            )
            for name, effect in found.items()
        ),
        tuple({run.run_id: run for name in found for run in verdicts[name].runs}.values()),
    )
