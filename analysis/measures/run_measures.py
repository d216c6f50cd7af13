"""The measures that come with tfnas."""

from collections.abc import Callable

from analysis.measures.accuracy import trained_accuracy
from analysis.measures.collapse import final_entropy, measure_collapse, train_gini
from analysis.measures.depth import measure_depth, redundant_share
from analysis.measures.latency_error import final_error_percent
from analysis.measures.measure import Measure
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from nas.search.records import Trajectory

BOTH = ("ablation", "targets")
TARGETS = ("targets",)


def _of_trajectory(compute: Callable[[Trajectory], float], array: str) -> Callable[[Run, Experiment], float]:
    """A number of the trajectory, NaN where the run has no trajectory or its method no such array."""

    def compute_of_run(run: Run, experiment: Experiment) -> float:
        trajectory = run.trajectory
        if trajectory is None or getattr(trajectory, array) is None:
            return float("nan")
        return compute(trajectory)

    return compute_of_run


def _last(metric: str) -> Callable[[Run, Experiment], float]:
    """The last value of a metric of the run."""
    return lambda run, experiment: run.metric(metric)


LOCKED_EARLY = Measure(
    "locked_early_share",
    "early lock-in",
    "share of layers whose leading operator no longer changes after the first quarter of the joint epochs",
    2,
    _of_trajectory(lambda trajectory: measure_collapse(trajectory).locked_early_share, "alpha_ELO"),
)
ENTROPY = Measure(
    "final_alpha_entropy",
    "entropy",
    "normalized entropy of alpha at the end, mean over layers",
    2,
    _of_trajectory(final_entropy, "alpha_ELO"),
)
TRAIN_GINI = Measure(
    "train_gini",
    "Gini",
    "Gini coefficient of how often each operator was trained",
    3,
    _of_trajectory(train_gini, "train_count_ELO"),
)
FLUCTUATION = Measure(
    "depth_fluctuation",
    "fluctuation",
    "mean absolute change of the derived depth, in layers per epoch",
    2,
    _of_trajectory(lambda trajectory: measure_depth(trajectory).fluctuation, "derived_op_EL"),
)
DEPTH_FLIPS = Measure(
    "depth_flips",
    "flips",
    "changes of depth against the direction of the previous change",
    1,
    _of_trajectory(lambda trajectory: float(measure_depth(trajectory).num_flips), "derived_op_EL"),
)
REDUNDANT = Measure(
    "redundant_share",
    "redundant",
    "share of joint epochs whose encoding is not the only one of its network",
    2,
    _of_trajectory(redundant_share, "redundant_E"),
)
LATENCY = Measure(
    "derived_latency_ms",
    "latency (ms)",
    "latency of the derived network by the lookup table",
    3,
    _last("derived_latency_ms"),
    TARGETS,
)
LATENCY_ERROR = Measure(
    "latency_error_percent",
    "error (%)",
    "error of the latency, in percent of its target",
    2,
    lambda run, experiment: final_error_percent(run),
    TARGETS,
)
ABS_LATENCY_ERROR = Measure(
    "abs_latency_error_percent",
    "|error| (%)",
    "absolute error of the latency, in percent of its target",
    2,
    lambda run, experiment: abs(final_error_percent(run)),
)
DERIVED_DEPTH = Measure(
    "derived_depth",
    "depth",
    "layers of the derived network",
    1,
    _of_trajectory(lambda trajectory: float(measure_depth(trajectory).depth_ES[-1].sum()), "derived_op_EL"),
    TARGETS,
)
SUPERNET_ACCURACY = Measure(
    "val_accuracy",
    "held-out acc.",
    "accuracy on held-out images at the end of the search",
    4,
    _last("val_accuracy"),
    BOTH,
)
TEST_ACCURACY = Measure(
    "test_accuracy",
    "test acc.",
    "accuracy of the derived network on the test images, trained from scratch",
    4,
    trained_accuracy,
    BOTH,
)
