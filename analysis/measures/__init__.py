"""Measures: numbers of runs, one question each."""

from typing import TYPE_CHECKING

from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from analysis.measures.measure import Measure, Numbers
    from analysis.reading.experiment import Experiment

_OWN = "analysis.measures.run_measures"

MEASURES: "Registry[Measure]" = Registry(
    "measure",
    {
        "locked_early_share": f"{_OWN}:LOCKED_EARLY",
        "locked_share_of_epochs": f"{_OWN}:LOCKED_SHARE_OF_EPOCHS",
        "final_alpha_entropy": f"{_OWN}:ENTROPY",
        "train_gini": f"{_OWN}:TRAIN_GINI",
        "depth_fluctuation": f"{_OWN}:FLUCTUATION",
        "depth_fluctuation_without_drift": f"{_OWN}:FLUCTUATION_WITHOUT_DRIFT",
        "depth_flips": f"{_OWN}:DEPTH_FLIPS",
        "depth_range": f"{_OWN}:DEPTH_RANGE",
        "derived_depth": f"{_OWN}:DERIVED_DEPTH",
        "collapsed_to_floor": f"{_OWN}:COLLAPSED_TO_FLOOR",
        "redundant_share": f"{_OWN}:REDUNDANT",
        "num_redundant_epochs": f"{_OWN}:NUM_REDUNDANT",
        "derived_latency_ms": f"{_OWN}:LATENCY",
        "latency_error_percent": f"{_OWN}:LATENCY_ERROR",
        "abs_latency_error_percent": f"{_OWN}:ABS_LATENCY_ERROR",
        "target_missed": f"{_OWN}:TARGET_MISSED",
        "val_accuracy": f"{_OWN}:SUPERNET_ACCURACY",
        "test_accuracy": f"{_OWN}:TEST_ACCURACY",
        "predictor_tau": f"{_OWN}:PREDICTOR_TAU",
        "oracle_accuracy": f"{_OWN}:ORACLE_ACCURACY",
        "oracle_regret": f"{_OWN}:ORACLE_REGRET",
        "supernet_tau": f"{_OWN}:SUPERNET_TAU",
    },
)
"""Numbers of a run, by name; tables show them in this order.

To add one, write a `Measure` with a function from a run and its experiment to a number, and register it
with `MEASURES.register("name", "my_module:MY_MEASURE")`. It becomes a column of the tables that it names.
"""


def measure_runs(experiment: "Experiment") -> "Numbers":
    """Computes all measures of all finished runs."""
    return {
        run.run_id: {measure.name: measure.compute(run, experiment) for measure in MEASURES.values()}
        for run in experiment.runs
    }
