"""The measures that come with tfnas."""

from collections.abc import Callable

from analysis.measures.accuracy import trained_accuracy
from analysis.measures.collapse import final_entropy, measure_collapse, train_gini
from analysis.measures.depth import count_redundant, measure_depth, redundant_share
from analysis.measures.latency_error import TOLERANCE_PERCENT, final_error_percent, misses_target
from analysis.measures.measure import Measure
from analysis.measures.oracle_regret import oracle_accuracy, oracle_regret, supernet_tau
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from nas.search.records import Trajectory

SHARE = (0.0, 1.0)
BOTH = ("ablation", "targets")
TARGETS = ("targets",)
NO_TABLE = ()
"""For numbers that claims and readers look up; more columns would make the tables too wide."""


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
    "share of the derived network's layers whose leading operator (identity aside) no longer changes after "
    "the first quarter of the joint epochs",
    2,
    _of_trajectory(lambda trajectory: measure_collapse(trajectory).locked_early_share, "alpha_ELO"),
    bounds=SHARE,
    better="less",
)
LOCKED_SHARE_OF_EPOCHS = Measure(
    "locked_share_of_epochs",
    "locked epochs",
    "share of the joint epochs from which on the leading operator (identity aside) no longer changes, mean "
    "over the derived network's layers",
    2,
    _of_trajectory(lambda trajectory: measure_collapse(trajectory).locked_share_of_epochs, "alpha_ELO"),
    NO_TABLE,
    bounds=SHARE,
    better="less",
)
ENTROPY = Measure(
    "final_alpha_entropy",
    "entropy",
    "normalized entropy of alpha at the end, mean over layers",
    2,
    _of_trajectory(final_entropy, "alpha_ELO"),
    bounds=SHARE,
)
TRAIN_GINI = Measure(
    "train_gini",
    "Gini",
    "Gini coefficient of how often each operator was trained",
    3,
    _of_trajectory(train_gini, "train_count_ELO"),
    bounds=SHARE,
)
FLUCTUATION = Measure(
    "depth_fluctuation",
    "fluctuation",
    "mean absolute change of a stage's depth, summed over stages, in layers per epoch",
    2,
    _of_trajectory(lambda trajectory: measure_depth(trajectory).fluctuation, "derived_op_EL"),
    better="less",
)
FLUCTUATION_WITHOUT_DRIFT = Measure(
    "depth_fluctuation_without_drift",
    "undone",
    "changes of the stages' depths that were undone later, in layers per epoch",
    2,
    _of_trajectory(lambda trajectory: measure_depth(trajectory).fluctuation_without_drift, "derived_op_EL"),
    NO_TABLE,
    better="less",
)
DEPTH_FLIPS = Measure(
    "depth_flips",
    "flips",
    "changes of a stage's depth against the direction of its previous change, summed over stages",
    1,
    _of_trajectory(lambda trajectory: float(measure_depth(trajectory).num_flips), "derived_op_EL"),
    better="less",
)
DEPTH_RANGE = Measure(
    "depth_range",
    "depth range",
    "range of the derived depth over the joint epochs, in layers",
    1,
    _of_trajectory(lambda trajectory: measure_depth(trajectory).depth_range, "derived_op_EL"),
    NO_TABLE,
)
DERIVED_DEPTH = Measure(
    "derived_depth",
    "depth",
    "layers of the derived network",
    1,
    _of_trajectory(lambda trajectory: float((trajectory.derived_op_EL[-1] >= 0).sum()), "derived_op_EL"),
    BOTH,
)
COLLAPSED_TO_FLOOR = Measure(
    "collapsed_to_floor",
    "at floor",
    "share of the searches that end with every stage at its smallest depth",
    2,
    _of_trajectory(lambda trajectory: measure_depth(trajectory).collapsed_to_floor, "derived_op_EL"),
    bounds=SHARE,
    better="less",
)
REDUNDANT = Measure(
    "redundant_share",
    "redundant",
    "share of joint epochs whose encoding is not the only one of its network",
    2,
    _of_trajectory(redundant_share, "redundant_E"),
    bounds=SHARE,
    better="less",
)
NUM_REDUNDANT = Measure(
    "num_redundant_epochs",
    "redundant epochs",
    "joint epochs whose encoding is not the only one of its network",
    1,
    _of_trajectory(lambda trajectory: float(count_redundant(trajectory)), "redundant_E"),
    NO_TABLE,
    better="less",
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
    better="less",
)
TARGET_MISSED = Measure(
    "target_missed",
    "missed",
    f"share of the searches whose latency is more than {TOLERANCE_PERCENT:g} % from its target",
    2,
    lambda run, experiment: misses_target(run),
    NO_TABLE,
    bounds=SHARE,
    better="less",
)
SUPERNET_ACCURACY = Measure(
    "val_accuracy",
    "held-out acc.",
    "accuracy on held-out images at the end of the search",
    4,
    _last("val_accuracy"),
    BOTH,
    bounds=SHARE,
    better="greater",
)
TEST_ACCURACY = Measure(
    "test_accuracy",
    "test acc.",
    "accuracy of the derived network on the test images, trained from scratch",
    4,
    trained_accuracy,
    BOTH,
    comes_later=True,
    bounds=SHARE,
    better="greater",
)

ORACLE_ACCURACY = Measure(
    "oracle_accuracy",
    "true accuracy",
    "test accuracy of the derived network by the oracle of its space: trained from scratch",
    3,
    oracle_accuracy,
    bounds=SHARE,
    better="greater",
)
ORACLE_REGRET = Measure(
    "oracle_regret",
    "regret",
    "how much more accurate the best network is that meets the target, as a fraction of 1, by the oracle",
    3,
    oracle_regret,
    bounds=SHARE,
    better="less",
)
PREDICTOR_TAU = Measure(
    "predictor_tau",
    "predictor tau",
    "Kendall's tau of predicted and held-out accuracies before the last round, cross-validated",
    2,
    _last("predictor_tau"),
    bounds=(-1.0, 1.0),
    better="greater",
)
SUPERNET_TAU = Measure(
    "supernet_tau",
    "supernet tau",
    "Kendall's tau, over the networks that a search evaluated, of accuracies with the supernet's weights and "
    "by the oracle",
    2,
    supernet_tau,
    bounds=(-1.0, 1.0),
    better="greater",
)
