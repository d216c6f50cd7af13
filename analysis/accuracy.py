"""Which accuracy a search stands for: its derived network's, once trained, or the supernet's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.runs import Experiment, Run


@dataclass(frozen=True)
class Accuracies:
    """An accuracy for each search run, as a fraction of 1; NaN where a run has none.

    Attributes:
        is_trained: True for test accuracies of derived networks that were trained from scratch;
            False for the supernet's accuracy on held-out images, which says little about them.
    """

    of_run: Mapping[str, float]
    is_trained: bool

    def of(self, run: Run) -> float:
        """The run's accuracy."""
        return self.of_run.get(run.run_id, np.nan)

    @property
    def name(self) -> str:
        """What the numbers are, for axes and captions."""
        return (
            "test accuracy, trained from scratch" if self.is_trained else "held-out accuracy of the supernet"
        )


def read_accuracies(experiment: Experiment) -> Accuracies:
    """Test accuracies if any network was trained (the mean over its trainings), else the supernet's."""
    trained: dict[str, list[float]] = {}
    searches = {run.run_id for run in experiment.runs}
    for training in experiment.training:
        source = searched_run(training)
        if source in searches and "test_accuracy" in training.metrics:
            trained.setdefault(source, []).append(training.metrics["test_accuracy"])
    if trained:
        return Accuracies({run_id: float(np.mean(values)) for run_id, values in trained.items()}, True)
    return Accuracies({run.run_id: run.metrics.get("val_accuracy", np.nan) for run in experiment.runs}, False)


def searched_run(training: Run) -> str:
    """The search run whose network a training run trained; empty for other networks."""
    source = str(training.config.get("architecture", ""))
    return training.tags.get("tfnas.search_run") or source.partition("run:")[2]
