"""Which accuracy a search stands for: that of its derived network once trained, or that of the search."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run


@dataclass(frozen=True)
class Accuracies:
    """An accuracy for each search run, as a fraction of 1; NaN where a run has none.

    Attributes:
        is_trained: True for test accuracies of derived networks that were trained from scratch;
            False for accuracies of the searches on held-out images, which say little about them.
    """

    of_run: Mapping[str, float]
    is_trained: bool

    def of(self, run: Run) -> float:
        """Returns the run's accuracy."""
        return self.of_run.get(run.run_id, np.nan)

    @property
    def name(self) -> str:
        """What the numbers are, for captions."""
        return "test accuracy, trained from scratch" if self.is_trained else "held-out accuracy of the search"


def read_accuracies(experiment: Experiment) -> Accuracies:
    """Returns test accuracies if any network was trained, else the accuracies of the searches."""
    trained = {run.run_id: trained_accuracy(run, experiment) for run in experiment.runs}
    if not np.isnan(list(trained.values())).all():
        return Accuracies(trained, True)
    return Accuracies({run.run_id: run.metric("val_accuracy") for run in experiment.runs}, False)


def trained_accuracy(run: Run, experiment: Experiment) -> float:
    """Returns the test accuracy of a search's network, the mean over its trainings; NaN if there are none."""
    own = [training for training in experiment.training if training.tags.get(tags.SEARCH_RUN) == run.run_id]
    return mean_metric(own, "test_accuracy")


def is_selected_on_test(training: Run) -> bool:
    """Returns whether the test images chose the epoch whose test accuracy is given."""
    return training.config.get("val_fraction") == 0


def selection_note(trainings: Iterable[Run]) -> str:
    """A sentence, after a space, if test accuracies are selected on test images; empty if none is."""
    is_selected = [is_selected_on_test(training) for training in trainings]
    if not any(is_selected):
        return ""
    which = "Test accuracies" if all(is_selected) else "Some test accuracies"
    return (
        f" {which} are selected on test images (val_fraction 0): the highest of all epochs, and so too high."
    )


def mean_metric(trainings: Sequence[Run], metric: str) -> float:
    """Returns the mean over the trainings that have the metric; NaN if none has."""
    values = [run.metrics[metric] for run in trainings if metric in run.metrics]
    return float(np.mean(values)) if values else float("nan")


def trainings_of_searches(experiment: Experiment) -> dict[str, list[Run]]:
    """Returns the trainings of each search's network, by the search's run id."""
    trainings: dict[str, list[Run]] = {run.run_id: [] for run in experiment.runs}
    for training in experiment.training:
        if (source := training.tags.get(tags.SEARCH_RUN)) in trainings:
            trainings[str(source)].append(training)
    return trainings


def trainings_of_others(experiment: Experiment) -> dict[str, list[Run]]:
    """Returns the trainings of networks that no search of the experiment found, by the network's name."""
    own = {run.run_id for run in experiment.runs}
    trainings: dict[str, list[Run]] = {}
    for training in experiment.training:
        if training.tags.get(tags.SEARCH_RUN) not in own:
            trainings.setdefault(str(training.config.get("architecture")), []).append(training)
    return trainings
