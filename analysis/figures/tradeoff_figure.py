"""Accuracy against latency, with the Pareto front, and the published networks, marked as such."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.setting_styles import Setting, pick_styles, setting_styles
from analysis.figures.ink.style import GRAY, LineStyle, new_figure
from analysis.measures.accuracy import (
    Accuracies,
    mean_metric,
    read_accuracies,
    selection_note,
    trainings_of_searches,
)
from analysis.measures.pareto import hypervolume, pareto_front
from analysis.measures.published_networks import PUBLISHED_NETWORKS, PublishedNetwork, is_of_imagenet
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

_PUBLISHED = (
    "Middle and right: published results on ImageNet-1K (open marks, squares: TF-NAS), not measured here and "
    "not comparable with the left panel. Middle: Titan RTX, batch 32; EfficientNet-B0 appears in the right "
    "panel only. "
)
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

_LOGARITHMIC_FROM = 5.0
"""The largest latency by the smallest."""


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
    shows_published = all(is_of_imagenet(run) for run in (experiment.training or runs))
    latency, accuracy = _points(experiment, runs, accuracies, is_measured)
    front = pareto_front(latency, accuracy)
    volume = hypervolume(latency, accuracy, latency.max(), 0.0)
    caption = (
        f"Accuracy against latency{'. Left: our trials' if shows_published else ' of our trials'}, "
        f"{accuracies.name} against {'measured latency' if is_measured else 'latency in the lookup table'}. "
        f"The line is the Pareto front of our trials ({count(len(front), 'network')}; hypervolume "
        f"{volume:.4g} ms, measured from {latency.max():.4g} ms and accuracy 0). "
        f"{_describe_others(others)}{_PUBLISHED if shows_published else ''}n = "
        f"{count(len(runs), 'trial')} of {count(len({run.seed for run in runs}), 'seed')}."
        f"{missing_note(experiment)}{selection_note(experiment.training)}"
    )

    def draw() -> Figure:
        groups = points_by_method(experiment, runs)
        num_rows = -(-(len(groups) + len(others)) // (3 if shows_published else 1))
        width_in = page().wide_in if shows_published else page().narrow_in
        figure = new_figure(width_in, (2.7 if shows_published else 2.2) + 0.14 * num_rows)
        ratios = [1.1, 0.9, 1.1] if shows_published else [1]
        ours, *beside = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
        _draw_ours(ours, groups, latency, accuracy, front)
        _draw_others(ours, others, taken=[group.style for group in groups])
        fit_latencies(ours, [*latency, *(group.over_seeds(MEASURED_LATENCY).mean for group in others)])
        ours.set_xlabel("measured latency (ms)" if is_measured else "latency (ms)")
        ours.set_ylabel("test accuracy" if accuracies.is_trained else "held-out accuracy")
        handles = ours.get_legend_handles_labels()[0]
        figure.legend(loc="outside upper left", ncols=3 if shows_published else 1, handles=handles)
        if shows_published:
            _draw_all_published(*beside)
        return figure

    table = _tabulate(experiment, runs, latency, accuracy, front, others)
    if shows_published:
        table = pd.concat([table, _tabulate_published()], ignore_index=True)
    all_runs = (*runs, *(run for group in trained for run in group.runs))
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
        "Open marks with bars: other networks trained under the same terms, means over seeds with the 95 % "
        "interval that follows from the number of test images. "
    )


@dataclass(frozen=True)
class MethodPoints:
    """The trials of one method: their indices, and what the legend calls them."""

    label: str
    style: LineStyle
    members: tuple[int, ...]


def points_by_method(experiment: Experiment, runs: Sequence[Run]) -> list[MethodPoints]:
    """Groups runs by method; a label counts seeds, and trials where these are more."""
    fields, styles = setting_styles(experiment, _METHOD)
    groups: dict[Setting, list[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(run.setting(fields), []).append(place)
    return [
        MethodPoints(
            f"{_name(experiment, runs[places[0]])} ({_count_seeds([runs[place] for place in places])})",
            styles[setting],
            tuple(places),
        )
        for setting, places in groups.items()
    ]


def _name(experiment: Experiment, run: Run) -> str:
    return experiment.label(run, [field for field in _METHOD if field in experiment.factors]) or "trials"


def _count_seeds(runs: Sequence[Run]) -> str:
    num_seeds = len({run.seed for run in runs})
    seeds = f"n = {count(num_seeds, 'seed')}"
    return seeds if num_seeds == len(runs) else f"{seeds}, {count(len(runs), 'trial')}"


def _draw_ours(
    axes: Axes, groups: Sequence[MethodPoints], latency: np.ndarray, accuracy: np.ndarray, front: np.ndarray
) -> None:
    for group in groups:
        members = list(group.members)
        axes.plot(
            latency[members],
            accuracy[members],
            linestyle="none",
            marker=group.style.marker,
            color=group.style.color,
            markeredgecolor="white",
            markeredgewidth=0.3,
            markersize=4.5,
            label=group.label,
        )
    axes.step(latency[front], accuracy[front], where="post", color="black", lw=0.8, zorder=0)
    axes.set_title("this experiment", loc="left")


def fit_latencies(axes: Axes, latencies: Sequence[float]) -> None:
    """Makes the axis logarithmic where a large network would press all others into a line."""
    if max(latencies) < _LOGARITHMIC_FROM * min(latencies):
        # Latencies just below one target have many digits.
        axes.xaxis.set_major_locator(MaxNLocator(4))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_others(axes: Axes, others: Sequence[TrainedGroup], taken: Sequence[LineStyle]) -> None:
    styles = pick_styles([group.name for group in others], taken)
    for group in others:
        style = styles[group.name]
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
            label=f"{group.name} (n = {count(group.num_seeds, 'seed')})",
        )


def _draw_all_published(by_latency: Axes, by_macs: Axes) -> None:
    with_latency = [(network, network.gpu_ms) for network in PUBLISHED_NETWORKS if network.gpu_ms]
    _draw_published(by_latency, with_latency, _OFFSETS_BY_LATENCY, "latency (ms)")
    with_macs = [(network, network.macs_millions) for network in PUBLISHED_NETWORKS]
    _draw_published(by_macs, with_macs, _OFFSETS_BY_MACS, "million MACs")


def _tabulate_published() -> pd.DataFrame:
    """A row for each published network, by its name."""
    return pd.DataFrame(
        [
            {
                "trial": f"published: {network.name}",
                "latency_ms": network.gpu_ms,
                "million_macs": network.macs_millions,
                "accuracy": network.top1_percent / 100,
            }
            for network in PUBLISHED_NETWORKS
        ]
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
            fontsize=6,
            ha="left" if offset[0] > 0 else "right",
        )
    axes.set_title("published (ImageNet-1K)", loc="left")
    axes.set_xlabel(label)
    axes.set_ylabel("top-1 (%)")
    axes.margins(x=0.2, y=0.12)
