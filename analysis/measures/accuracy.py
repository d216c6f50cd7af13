"""Which accuracy a search stands for: its derived network's, once trained, or the supernet's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.reading.experiment import Experiment, Run


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
    trained = {
        run_id: float(np.mean(values))
        for run_id, trainings in trainings_of_searches(experiment).items()
        if (values := [run.metrics["test_accuracy"] for run in trainings if "test_accuracy" in run.metrics])
    }
    if trained:
        return Accuracies(trained, True)
    return Accuracies({run.run_id: run.metrics.get("val_accuracy", np.nan) for run in experiment.runs}, False)


def trainings_of_searches(experiment: Experiment) -> dict[str, list[Run]]:
    """The trainings of each search run's network, by the search's run id."""
    trainings: dict[str, list[Run]] = {run.run_id: [] for run in experiment.runs}
    for training in experiment.training:
        if (source := training.tags.get("tfnas.search_run")) in trainings:
            trainings[str(source)].append(training)
    return trainings


def trainings_of_others(experiment: Experiment) -> dict[str, list[Run]]:
    """The trainings of networks that no search of the experiment found, by what the person named."""
    own = {run.run_id for run in experiment.runs}
    trainings: dict[str, list[Run]] = {}
    for training in experiment.training:
        if training.tags.get("tfnas.search_run") not in own:
            trainings.setdefault(str(training.config.get("architecture")), []).append(training)
    return trainings
