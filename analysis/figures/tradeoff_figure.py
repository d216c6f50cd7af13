"""Accuracy against latency, with the Pareto front, and the published networks, marked as such."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.style import GRAY, TWO_COLUMNS_IN, line_style, new_figure
from analysis.measures.accuracy import (
    Accuracies,
    mean_metric,
    read_accuracies,
    selection_note,
    trainings_of_searches,
)
from analysis.measures.pareto import hypervolume, pareto_front
from analysis.measures.published_networks import PUBLISHED_NETWORKS, PublishedNetwork
from analysis.measures.trained_groups import (
    MEASURED_LATENCY,
    TrainedGroup,
    is_one_session,
    trained_groups,
)
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run

_METHOD = ("method", "sampling", "depth", "elasticity")
_FAMILIES = {"TF-NAS": ("s", "#0072b2"), "EfficientNet": ("*", "#d55e00"), "others": ("o", GRAY)}
# Where a name stands beside its point, in points; to the right by default.
_OFFSETS_BY_LATENCY = {"TF-NAS-A": (-5, 3), "TF-NAS-D": (5, -5), "TF-NAS-C": (-5, 3)}
_OFFSETS_BY_MACS = {
    "TF-NAS-A": (-4, 4),
    "TF-NAS-B": (-5, 1),
    "EfficientNet-B0": (5, -6),
    "TF-NAS-CPU-A": (-5, 2),
    "TF-NAS-C": (-3, -8),
    "MobileNetV3-Large": (1, 4),
    "MnasNet-A1": (2, -8),
    "TF-NAS-CPU-B": (-5, 2),
    "FBNet-B": (2, -8),
    "TF-NAS-D": (-5, -4),
}


@for_grids
def tradeoff_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws our trials, the published latencies and the published MACs in panels of their own."""
    accuracies = read_accuracies(experiment)
    runs = tuple(
        run
        for run in experiment.runs
        if not np.isnan(accuracies.of(run)) and "derived_latency_ms" in run.metrics
    )
    if not runs:
        raise NothingToDrawError("no run with an accuracy and a latency")
    # Networks that no search found have no latency by the table: they are shown if all were measured in turn.
    trained = trained_groups(experiment)
    is_measured = bool(trained) and is_one_session(trained)
    others = [group for group in trained if not group.searches] if is_measured else []
    latency, accuracy = _points(experiment, runs, accuracies, is_measured)
    front = pareto_front(latency, accuracy)
    volume = hypervolume(latency, accuracy, latency.max(), 0.0)
    caption = (
        f"Accuracy against latency. Left: our trials, {accuracies.name} against "
        f"{'measured latency' if is_measured else 'latency in the lookup table'}. The line is the Pareto "
        f"front of our trials ({count(len(front), 'network')}; "
        f"hypervolume {volume:.4g} ms, measured from {latency.max():.4g} ms and accuracy 0). "
        f"{_describe_others(others)}Middle and right: published results on ImageNet-1K (open marks, "
        "squares: TF-NAS), not measured here and not comparable with the left panel. Middle: Titan RTX, "
        "batch 32; EfficientNet-B0 appears in the right panel only. n = "
        f"{count(len(runs), 'trial')}.{missing_note(experiment)}{selection_note(experiment.training)}"
    )

    def draw() -> Figure:
        groups = _by_method(experiment, runs)
        num_labels = len(groups) + len(others)
        figure = new_figure(TWO_COLUMNS_IN, 2.2 + 0.14 * -(-num_labels // 3))
        ours, by_latency, by_macs = figure.subplots(1, 3, width_ratios=[1.1, 0.9, 1.1])
        _draw_ours(ours, groups, latency, accuracy, front)
        _draw_others(ours, others, first_style=len(groups))
        ours.set_xlabel("measured latency (ms)" if is_measured else "latency (ms)")
        figure.legend(loc="outside upper left", ncols=3, handles=ours.get_legend_handles_labels()[0])
        with_latency = [(network, network.gpu_ms) for network in PUBLISHED_NETWORKS if network.gpu_ms]
        _draw_published(by_latency, with_latency, _OFFSETS_BY_LATENCY, "latency (ms)")
        with_macs = [(network, network.macs_millions) for network in PUBLISHED_NETWORKS]
        _draw_published(by_macs, with_macs, _OFFSETS_BY_MACS, "million MACs")
        ours.set_ylabel("test accuracy" if accuracies.is_trained else "held-out accuracy")
        return figure

    all_runs = (*runs, *(run for group in trained for run in group.runs))
    table = _tabulate(experiment, runs, latency, accuracy, front, others)
    return [Drawing("tradeoff", "Accuracy against latency", caption, all_runs, draw, table)]


def _tabulate(
    experiment: Experiment,
    runs: Sequence[Run],
    latency: np.ndarray,
    accuracy: np.ndarray,
    front: np.ndarray,
    others: Sequence[TrainedGroup],
) -> pd.DataFrame:
    """A row for each of our trials, then one for each other network, by its name."""
    ours = tabulate(experiment, runs, lambda run: [{}]).assign(
        latency_ms=latency, accuracy=accuracy, is_on_front=np.isin(np.arange(len(runs)), front)
    )
    beside = [
        {
            "trial": group.name,
            "latency_ms": group.over_seeds(MEASURED_LATENCY).mean,
            "accuracy": group.accuracy_over_images().mean,
        }
        for group in others
    ]
    return pd.concat([ours, pd.DataFrame(beside)], ignore_index=True) if beside else ours


def _points(
    experiment: Experiment, runs: Sequence[Run], accuracies: Accuracies, is_measured: bool
) -> tuple[np.ndarray, np.ndarray]:
    trainings = trainings_of_searches(experiment)
    return (
        np.array(
            [
                mean_metric(trainings[run.run_id], MEASURED_LATENCY)
                if is_measured
                else run.metrics["derived_latency_ms"]
                for run in runs
            ]
        ),
        np.array([accuracies.of(run) for run in runs]),
    )


def _describe_others(others: Sequence[TrainedGroup]) -> str:
    if not others:
        return ""
    return (
        "Open marks on the left: other networks trained under the same terms, means over seeds with the 95 % "
        "interval that follows from the number of test images. "
    )


def _by_method(experiment: Experiment, runs: Sequence[Run]) -> dict[str, list[int]]:
    """The indices of the runs of each method, by its label."""
    varying = [factor for factor in _METHOD if factor in experiment.factors]
    groups: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(experiment.label(run, varying) or "trials", []).append(place)
    return groups


def _draw_ours(
    axes: Axes, groups: dict[str, list[int]], latency: np.ndarray, accuracy: np.ndarray, front: np.ndarray
) -> None:
    for index, (label, members) in enumerate(groups.items()):
        style = line_style(index)
        axes.plot(
            latency[members],
            accuracy[members],
            linestyle="none",
            marker=style.marker,
            color=style.color,
            markeredgecolor="white",
            markeredgewidth=0.3,
            label=f"{label} (n = {len(members)})",
        )
    axes.step(latency[front], accuracy[front], where="post", color="black", lw=0.8, zorder=0)
    axes.set_title("this experiment", loc="left")


def _draw_others(axes: Axes, others: Sequence[TrainedGroup], first_style: int) -> None:
    for index, group in enumerate(others, start=first_style):
        style = line_style(index)
        accuracy = group.accuracy_over_images()
        low, high = accuracy.interval or (accuracy.mean, accuracy.mean)
        axes.errorbar(
            group.over_seeds(MEASURED_LATENCY).mean,
            accuracy.mean,
            yerr=[[accuracy.mean - low], [high - accuracy.mean]],
            linestyle="none",
            marker=style.marker,
            color=style.color,
            markerfacecolor="white",
            elinewidth=0.7,
            label=f"{group.name} (n = {group.num_seeds})",
        )


def _draw_published(
    axes: Axes,
    points: Sequence[tuple[PublishedNetwork, float]],
    offsets: dict[str, tuple[int, int]],
    label: str,
) -> None:
    for network, x in points:
        marker, color = _FAMILIES[network.family]
        axes.plot(
            x,
            network.top1_percent,
            marker=marker,
            color=color,
            markerfacecolor="white",
            linestyle="none",
            markersize=7 if marker == "*" else 4,
        )
        offset = offsets.get(network.name, (5, -2))
        axes.annotate(
            network.name.removeprefix("TF-NAS-"),
            (x, network.top1_percent),
            offset,
            textcoords="offset points",
            fontsize=4.8,
            ha="left" if offset[0] > 0 else "right",
        )
    axes.set_title("published (ImageNet-1K)", loc="left")
    axes.set_xlabel(label)
    axes.set_ylabel("top-1 (%)")
    axes.margins(x=0.2, y=0.12)
