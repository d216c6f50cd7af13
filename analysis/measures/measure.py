"""The numbers of one run that tables and claims compare: what each is, and where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.measures.accuracy import read_accuracies
from analysis.measures.collapse import measure_collapse
from analysis.measures.depth import measure_depth
from analysis.measures.latency_error import final_error_percent
from analysis.reading.experiment import Experiment, Run


@dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
        name: its key, a column of the CSV tables.
        heading: a few letters for the head of a column.
        title: what it is, with the unit.
        digits: decimals that are shown.
    """

    name: str
    heading: str
    title: str
    digits: int


LOCKED_EARLY = Measure(
    "locked_early_share",
    "early lock-in",
    "share of layers whose leading operator never changes after the first quarter of the joint epochs",
    2,
)
ENTROPY = Measure(
    "final_alpha_entropy", "entropy", "normalised entropy of alpha at the end, mean over layers", 2
)
TRAIN_GINI = Measure("train_gini", "Gini", "Gini coefficient of how often each operator was trained", 3)
FLUCTUATION = Measure(
    "depth_fluctuation", "fluctuation", "mean absolute change of the derived depth, layers an epoch", 2
)
DEPTH_FLIPS = Measure("depth_flips", "flips", "changes of depth against the direction of the last change", 1)
REDUNDANT = Measure(
    "redundant_share", "redundant", "share of joint epochs whose encoding is not its network's only one", 2
)
DERIVED_DEPTH = Measure("derived_depth", "depth", "layers of the derived network", 1)
LATENCY = Measure(
    "derived_latency_ms", "latency (ms)", "latency of the derived network in the lookup table", 3
)
LATENCY_ERROR = Measure("latency_error_percent", "error (%)", "latency against its target", 2)
ABS_LATENCY_ERROR = Measure(
    "abs_latency_error_percent", "|error| (%)", "absolute distance of the latency from its target", 2
)
SUPERNET_ACCURACY = Measure(
    "val_accuracy",
    "held-out acc.",
    "accuracy of the supernet on the images held out for architecture steps",
    4,
)
TEST_ACCURACY = Measure(
    "test_accuracy",
    "test acc.",
    "accuracy of the derived network on the test images, trained from scratch",
    4,
)

MEASURES: tuple[Measure, ...] = (
    LOCKED_EARLY,
    ENTROPY,
    TRAIN_GINI,
    FLUCTUATION,
    DEPTH_FLIPS,
    REDUNDANT,
    DERIVED_DEPTH,
    LATENCY,
    LATENCY_ERROR,
    ABS_LATENCY_ERROR,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
)

Numbers = Mapping[str, Mapping[str, float]]
"""For each run id the value of each measure, by its name; NaN where it is not known."""


def measure_runs(experiment: Experiment) -> Numbers:
    """All measures of all finished runs."""
    accuracies = read_accuracies(experiment)
    tested = accuracies.of if accuracies.is_trained else (lambda run: float("nan"))
    return {run.run_id: _measure_run(run, tested) for run in experiment.runs}


def _measure_run(run: Run, test_accuracy: Callable[[Run], float]) -> dict[str, float]:
    error_percent = final_error_percent(run)
    numbers = {measure.name: float("nan") for measure in MEASURES} | {
        LATENCY.name: run.metrics.get("derived_latency_ms", np.nan),
        LATENCY_ERROR.name: error_percent,
        ABS_LATENCY_ERROR.name: abs(error_percent),
        SUPERNET_ACCURACY.name: run.metrics.get("val_accuracy", np.nan),
        TEST_ACCURACY.name: test_accuracy(run),
    }
    if run.trajectory is None:
        return numbers
    collapse, depth = measure_collapse(run.trajectory), measure_depth(run.trajectory)
    return numbers | {
        LOCKED_EARLY.name: collapse.locked_early_share,
        ENTROPY.name: float(collapse.entropy_EL[-1].mean()),
        TRAIN_GINI.name: collapse.train_gini,
        FLUCTUATION.name: depth.fluctuation,
        DEPTH_FLIPS.name: float(depth.num_flips),
        REDUNDANT.name: depth.redundant_share,
        DERIVED_DEPTH.name: float(depth.depth_ES[-1].sum()),
    }
