"""Verdicts: claims, and the statistics that decide them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from analysis.measures.measure import Numbers
    from analysis.reading.experiment import Experiment
    from analysis.verdicts.verdict import Claim

CLAIMS: "Registry[Callable[[Experiment, Numbers], Claim]]" = Registry(
    "claim",
    {
        "a": "analysis.verdicts.claims:REDUCES_COLLAPSE",
        "b": "analysis.verdicts.claims:REDUCES_FLUCTUATION",
        "c": "analysis.verdicts.claims:removes_redundancy",
        "d": "analysis.verdicts.claims:meets_targets",
        "e": "analysis.verdicts.claims:is_as_accurate",
    },
)
"""Claims by letter: each judges the runs of an experiment by their measures.

To add one, write a `PairedClaim` (or a function from an experiment and its numbers to a `Claim`) and
register it with `CLAIMS.register("f", "my_module:MY_CLAIM")`.
"""

NONE_OF_A_STUDY = (
    "A study compares no settings; to test claims, launch a grid, such as the one in its best.yaml."
)


def judge_claims(experiment: "Experiment", numbers: "Numbers") -> list["Claim"]:
    """Judges all claims; none if the experiment is a study (`NONE_OF_A_STUDY`)."""
    if experiment.is_study:
        return []
    return [replace(judge(experiment, numbers), letter=letter) for letter, judge in CLAIMS.items()]
