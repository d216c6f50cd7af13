"""Networks trained from scratch, one row each: their accuracy, their size and their speed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from analysis.measures.accuracy import mean_metric, trainings_of_others, trainings_of_searches
from analysis.measures.run_measures import TEST_ACCURACY
from analysis.measures.sign_flips import CONFIDENCE
from analysis.measures.summary import Summary, summarize
from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.run import NETWORK_FIELDS, Run, training_terms, varying_fields
from analysis.reading.values import Value

MEASURED_LATENCY = "measured_latency_ms"
LATENCY_RATIO = "latency_ratio_to_efficientnet_b0"


@dataclass(frozen=True)
class TrainedGroup:
    """The trainings of one row: those of the networks of a setting, or those of one other network.

    Attributes:
        name: the setting, or the network.
        searches: one per seed; empty for a network that no search of the experiment found.
        trainings: those of each search, or one for each seed.
    """

    name: str
    searches: tuple[Run, ...]
    trainings: tuple[tuple[Run, ...], ...]

    @property
    def num_seeds(self) -> int:
        """Number of searches or, without any, of trainings."""
        return len(self.trainings)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All trainings of the row."""
        return tuple(run for of_seed in self.trainings for run in of_seed)

    def over_seeds(self, metric: str) -> Summary:
        """Returns mean and interval of a metric; several trainings of a network count as one."""
        return summarize([mean_metric(of_seed, metric) for of_seed in self.trainings])

    def over_searches(self, metric: str) -> Summary:
        """Returns mean and interval of a metric of the searches."""
        return summarize([run.metric(metric) for run in self.searches])

    def accuracy_over_images(self) -> Summary:
        """Returns the mean test accuracy with Wilson's interval, which reflects the number of test images."""
        mean = self.over_seeds(TEST_ACCURACY.name).mean
        num_images = [run.metrics["num_test_images"] for run in self.runs if "num_test_images" in run.metrics]
        if np.isnan(mean) or not num_images:
            return Summary(0, mean, None)
        num = int(min(num_images))
        interval = binomtest(round(mean * num), num).proportion_ci(CONFIDENCE, method="wilson")
        return Summary(num, mean, (float(interval.low), float(interval.high)))


def trained_groups(experiment: Experiment) -> list[TrainedGroup]:
    """Returns a row for each network that was trained: those of the searches by setting, then the others.

    Trainings under different terms (learning rate, epochs, ...) are not mixed: the names tell the terms.
    """
    by_terms: dict[tuple[Value, ...], list[Run]] = {}
    for run in experiment.training:
        by_terms.setdefault(training_terms(run), []).append(run)
    if len(by_terms) == 1:
        return _groups(experiment)
    fields = [name for name in varying_fields(experiment.training) if name not in NETWORK_FIELDS]
    groups: list[TrainedGroup] = []
    for runs in by_terms.values():
        terms = experiment.label(runs[0], fields) or f"results version {runs[0].basis.results_version}"
        of_terms = _groups(replace(experiment, training=tuple(runs)))
        groups += [replace(group, name=f"{group.name}, {terms}") for group in of_terms]
    return groups


def _groups(experiment: Experiment) -> list[TrainedGroup]:
    of_search = trainings_of_searches(experiment)
    groups = []
    for runs in experiment.by_setting():
        searches = tuple(run for run in runs if of_search[run.run_id])
        if searches:
            trainings = tuple(tuple(of_search[run.run_id]) for run in searches)
            groups.append(TrainedGroup(experiment.label(runs[0]) or experiment.name, searches, trainings))
    others = trainings_of_others(experiment).values()
    return groups + [
        TrainedGroup(network_name(trainings[0]), (), tuple((run,) for run in trainings))
        for trainings in others
    ]


def network_name(training: Run) -> str:
    """Returns what to call the network of a training."""
    return training.tags.get(tags.ARCHITECTURE_FACTOR) or Path(str(training.config.get("architecture"))).stem


def describe_measurement(groups: Sequence[TrainedGroup]) -> str:
    """Returns how latencies were measured, in a sentence or two; empty if none was."""
    runs = [run for group in groups for run in group.runs if MEASURED_LATENCY in run.metrics]
    if not runs:
        return ""
    conditions = "; ".join(dict.fromkeys(run.tag(tags.LATENCY_CONDITIONS) for run in runs))
    text = (
        "Measured latency: whole networks, measured in turn with EfficientNet-B0 after the trainings "
        f"({conditions})."
    )
    if any(run.tags.get(tags.LATENCY_IS_UPPER_BOUND) == "True" for run in runs):
        text += " Other programs used the machine meanwhile, so these are upper bounds."
    if not is_one_session(groups):
        text += " Not all were measured in one session, so only the ratios compare."
    return text


def is_one_session(groups: Sequence[TrainedGroup]) -> bool:
    """Returns whether the latencies of all networks were measured, in one session."""
    runs = [run for group in groups for run in group.runs]
    sessions = {run.tags.get(tags.LATENCY_SESSION) for run in runs}
    return len(sessions) == 1 and all(MEASURED_LATENCY in run.metrics for run in runs)
