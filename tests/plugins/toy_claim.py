"""A measure, and a claim about it."""

from analysis.measures import MEASURES
from analysis.measures.measure import Measure
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from analysis.verdicts import CLAIMS
from analysis.verdicts.claim import Claim


def widest_layer(run: Run, experiment: Experiment) -> float:
    """The largest number of mid channels of the derived network."""
    if run.architecture is None:
        return float("nan")
    return float(max(width for *_, width in run.architecture.layers))


WIDEST = Measure("widest_layer", "widest", "largest mid channels of the derived network", 0, widest_layer)
MEASURES.register("widest_layer", WIDEST)

NARROWS = Claim(
    statement="The squared objective narrows networks.",
    measure="widest_layer",
    baseline={"objective": "tfnas"},
    treated={"objective": "squared"},
    direction="less",
    smallest_effect=1.0,
)
CLAIMS.register("x", NARROWS)
