"""Networks that were trained from scratch, a row each: what they reach, what they cost, how fast they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from analysis.measures.accuracy import trainings_of_others, trainings_of_searches
from analysis.reading.experiment import OF_NETWORK, Experiment, Run, same_terms, varying_fields
from analysis.reading.values import Value
from analysis.verdicts.statistics import CONFIDENCE, Summary, summarize

TEST_ACCURACY = "test_accuracy"
MEASURED_LATENCY = "measured_latency_ms"
LATENCY_RATIO = "latency_ratio_to_efficientnet_b0"


@dataclass(frozen=True)
class TrainedGroup:
    """The trainings of one row: of the networks that a setting's searches found, or of one other network.

    Attributes:
        name: the setting, or the network.
        searches: one a seed; none for a network that no search of the experiment found.
        trainings: for each search its own, or for each seed the one.
    """

    name: str
    searches: tuple[Run, ...]
    trainings: tuple[tuple[Run, ...], ...]

    @property
    def num_seeds(self) -> int:
        """Of the searches or, where none is, of the trainings."""
        return len(self.trainings)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All its trainings."""
        return tuple(run for of_seed in self.trainings for run in of_seed)

    def over_seeds(self, metric: str) -> Summary:
        """Mean and interval of a metric of the trainings; several trainings of a network count as one."""
        return summarize([mean_metric(of_seed, metric) for of_seed in self.trainings])

    def over_searches(self, metric: str) -> Summary:
        """Mean and interval of a metric of the searches."""
        return summarize([run.metrics.get(metric, np.nan) for run in self.searches])

    def accuracy_over_images(self) -> Summary:
        """Mean test accuracy with Wilson's interval: how far it may be off for want of test images."""
        mean = self.over_seeds(TEST_ACCURACY).mean
        num_images = [run.metrics["num_test_images"] for run in self.runs if "num_test_images" in run.metrics]
        if np.isnan(mean) or not num_images:
            return Summary(0, mean, None)
        num = int(min(num_images))
        interval = binomtest(round(mean * num), num).proportion_ci(CONFIDENCE, method="wilson")
        return Summary(num, mean, (float(interval.low), float(interval.high)))


def trained_groups(experiment: Experiment) -> list[TrainedGroup]:
    """All networks that were trained: those of the searches by setting, then the others.

    Where trainings differ in their terms (learning rate, epochs, ...), they are not mixed: names say which.
    """
    by_terms: dict[tuple[Value, ...], list[Run]] = {}
    for run in experiment.training:
        by_terms.setdefault(same_terms(run), []).append(run)
    if len(by_terms) == 1:
        return _groups(experiment)
    fields = [name for name in varying_fields(experiment.training) if name not in OF_NETWORK]
    groups: list[TrainedGroup] = []
    for runs in by_terms.values():
        terms = experiment.label(runs[0], fields) or f"code {runs[0].provenance.code_version[:8]}"
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
    """What to call the network of a training."""
    return training.tags.get("factor.architecture") or Path(str(training.config.get("architecture"))).stem


def mean_metric(trainings: Sequence[Run], metric: str) -> float:
    """The mean over the trainings that have the metric; NaN where none has."""
    values = [run.metrics[metric] for run in trainings if metric in run.metrics]
    return float(np.mean(values)) if values else float("nan")


def describe_measurement(groups: Sequence[TrainedGroup]) -> str:
    """How latencies were measured, in a sentence or two; empty where none was."""
    runs = [run for group in groups for run in group.runs if MEASURED_LATENCY in run.metrics]
    if not runs:
        return ""
    told = "; ".join(dict.fromkeys(run.tags.get("tfnas.latency_conditions", "unknown") for run in runs))
    text = f"Measured latency: of whole networks in turn with EfficientNet-B0, after the trainings ({told})."
    if any(run.tags.get("tfnas.latency_is_upper_bound") == "True" for run in runs):
        text += " Others were using the machine: upper bounds."
    if not is_one_session(groups):
        text += " Not all at one time: only the ratios compare."
    return text


def is_one_session(groups: Sequence[TrainedGroup]) -> bool:
    """Whether the latency of every network was measured, and all in turn with each other."""
    runs = [run for group in groups for run in group.runs]
    sessions = {run.tags.get("tfnas.latency_session") for run in runs}
    return len(sessions) == 1 and all(MEASURED_LATENCY in run.metrics for run in runs)
