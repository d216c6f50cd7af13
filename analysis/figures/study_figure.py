"""Figures of a study: importances, slices, and the trade-off between two objectives."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.page import page
from analysis.figures.ink.style import GRAY, LIGHT_GRAY, line_style, new_figure
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from analysis.reading.run import Run
from analysis.reading.study_record import FieldImportance, RecordedObjective, StudyRecord
from analysis.verdicts.power import ALPHA
from analysis.verdicts.slices import Slice, slice_study

_MAX_COLUMNS = 5
_TITLE_PT = 6.5
"""Font size of a panel's title: with five panels in a row, bold rho and p just fit."""
_MAX_CHARS = 18
"""Most letters of all choices of a field that fit side by side below such a panel."""
_LABELS = {
    "val_accuracy": "held-out accuracy",
    "abs_latency_error_percent": "distance from target (%)",
    "latency_error_percent": "latency error (%)",
    "derived_latency_ms": "latency (ms)",
}
_BEST = line_style(0).color
_OTHER = line_style(1).color


def study_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws slices, importances and the trade-off, as far as the study supports them."""
    study = experiment.study
    if study is None:
        raise OutOfPlaceError("the experiment has no study")
    if study.complete.empty:
        raise NothingToDrawError("no point of the study has values")
    runs = experiment.study_runs
    drawings = [_slices(experiment, study, runs)]
    if study.importances:
        drawings.append(_importances(experiment, study, runs))
    if len(study.objectives) == 2:
        drawings.append(_front(experiment, study, runs))
    return drawings


def _importances(experiment: Experiment, study: StudyRecord, runs: tuple[Run, ...]) -> Drawing:
    groups = {
        one: [each for each in study.importances if each.metric == one.metric] for one in study.objectives
    }
    groups = {one: sorted(found, key=lambda each: each.share) for one, found in groups.items() if found}
    caption = (
        "How much each field matters for each objective: share of the variance that each field explains "
        "alone (fANOVA; the shares of fields that all points vary sum to 1). Gray: the largest of 19 shares "
        "with values shuffled among the points, which a field without any effect can reach. Pale bars do "
        f"not exceed it. n = {count(len(study.complete), 'point')}, {study.seeds_text}."
        f"{missing_note(experiment)}"
    )

    def draw() -> Figure:
        num_bars = max(map(len, groups.values()))
        figure = new_figure(page().narrow_in if len(groups) == 1 else page().wide_in, 0.75 + 0.2 * num_bars)
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (objective, found) in zip(panels, groups.items(), strict=True):
            _draw_importances(axes, objective, found)
        figure.legend(
            handles=[
                Patch(color=_OTHER, label="above chance"),
                Patch(color=_OTHER, alpha=0.35, lw=0, label="not above chance"),
                Patch(color=LIGHT_GRAY, label="by chance"),
            ],
            loc="outside upper left",
            ncols=3,
        )
        return figure

    table = pd.DataFrame([vars(each) for found in groups.values() for each in found])
    return Drawing("study-importance", "Importance of fields", caption, runs, draw, table)


def _draw_importances(axes: Axes, objective: RecordedObjective, found: list[FieldImportance]) -> None:
    rows = np.arange(len(found))
    chances = np.nan_to_num([each.chance for each in found])
    axes.barh(rows, chances, color=LIGHT_GRAY, height=0.85)
    for row, each in enumerate(found):
        axes.barh(row, each.share, color=_OTHER, alpha=1 if each.is_above_chance else 0.35, height=0.45)
    total = max(each.num_trials for each in found)
    axes.set_yticks(
        rows,
        [
            each.field if each.num_trials == total else f"{each.field} (n = {each.num_trials})"
            for each in found
        ],
    )
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of variance")
    axes.set_title(_label(objective), loc="left")


def _slices(experiment: Experiment, study: StudyRecord, runs: tuple[Run, ...]) -> Drawing:
    slices = slice_study(study)
    best = set(study.best()["number"])
    several = len(study.objectives) > 1
    caption = (
        f"Every point of the study along each field. Orange: {'Pareto front' if several else 'the best'}. "
        f"{_explain_correlations(study, slices)}"
        f"n = {count(len(study.complete), 'point')}, {study.seeds_text}.{missing_note(experiment)}"
    )

    def draw() -> Figure:
        num_columns = min(len(study.fields), _MAX_COLUMNS)
        rows = [
            row[start : start + num_columns] for row in slices for start in range(0, len(row), num_columns)
        ]
        width_in = page().narrow_in if num_columns == 1 else page().wide_in
        figure = new_figure(width_in, 1.5 * len(rows))
        panels = figure.subplots(len(rows), num_columns, squeeze=False, sharey="row")
        for row, all_axes in zip(rows, panels, strict=True):
            for axes in all_axes[len(row) :]:
                axes.remove()
            for column, (axes, one) in enumerate(zip(all_axes, row, strict=False)):
                _draw_slice(axes, one, best, is_left=column == 0)
        return figure

    table = pd.concat([_slice_table(one) for row in slices for one in row], ignore_index=True)
    return Drawing("study-slices", "Slices through the study", caption, runs, draw, table)


def _slice_table(one: Slice) -> pd.DataFrame:
    """A row for each point of a panel."""
    choices = one.field.choices
    positions = one.positions_N.tolist()
    return pd.DataFrame(
        {
            "objective": one.objective.metric,
            "field": one.field.name,
            "point": one.numbers_N,
            "value": positions if choices is None else [choices[int(place)] for place in positions],
            "result": one.values_N,
            "rho": one.rho,
            "p_value": one.p_value,
        }
    )


def _explain_correlations(study: StudyRecord, slices: list[list[Slice]]) -> str:
    num_tested = sum(np.isfinite(one.rho) for row in slices for one in row)
    if not num_tested:
        return ""
    is_drawn = study.about["sampler"] == "random"
    caveat = "" if is_drawn else " (not quite true here: the sampler chose points by earlier ones)"
    return (
        "ρ: Spearman's rank correlation over all points of a panel, while all other fields vary too. p: its "
        f"two-sided test, which assumes independent points{caveat}, corrected by Holm's method for "
        f"{count(num_tested, 'panel')}. Bold: p < {ALPHA:g}. "
    )


def _show_p(p_value: float) -> str:
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def _draw_slice(axes: Axes, one: Slice, best: set[int], *, is_left: bool) -> None:
    is_best_N = np.isin(one.numbers_N, list(best))
    for mask_N, color, marker in ((~is_best_N, _OTHER, "o"), (is_best_N, _BEST, "s")):
        axes.plot(
            one.positions_N[mask_N],
            one.values_N[mask_N],
            linestyle="none",
            marker=marker,
            color=color,
            markeredgecolor="white",
            markeredgewidth=0.3,
        )
    if one.field.choices is not None:
        axes.set_xticks(range(len(one.field.choices)), one.field.choices)
        if sum(map(len, one.field.choices)) > _MAX_CHARS:
            axes.tick_params("x", labelrotation=30)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.5, len(one.field.choices) - 0.5)
    elif one.field.is_log:
        _set_log_axis(axes)
    axes.set_xlabel(one.field.name)
    if is_left:
        axes.set_ylabel(_label(one.objective))
    if np.isfinite(one.rho):
        # Plus 0, so that a rho that rounds to zero has no sign.
        title = f"ρ = {round(one.rho, 2) + 0:+.2f}, {_show_p(one.p_value)}".replace("-", "−")
        weight = "bold" if one.p_value < ALPHA else "normal"
        axes.set_title(title, loc="left", fontsize=_TITLE_PT, fontweight=weight)


def _set_log_axis(axes: Axes) -> None:
    """Sets a log scale with few plain numbers, because there is little room."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)

    def count_ticks(subs: tuple[int, ...]) -> int:
        ticks = np.outer(subs, 10.0**exponents)
        return int(((low <= ticks) & (ticks <= high)).sum())

    # With fewer than two ticks, `LogLocator` would use those of a linear axis, which are too many.
    if high > 20 * low and count_ticks((1,)) > 1:
        axes.xaxis.set_major_locator(LogLocator(subs=(1,), numticks=5))
    elif count_ticks((1, 2, 5)) > 1:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _front(experiment: Experiment, study: StudyRecord, runs: tuple[Run, ...]) -> Drawing:
    best = study.best()
    first, second = study.objectives
    x_N, y_N = study.values_NK.T
    caption = (
        "The two objectives of the study. Orange, with numbers of trials: the Pareto front "
        f"({count(len(best), 'point')}), the points that no other point beats in one objective without being "
        "worse in the other. It looks better than it is, because its points were chosen by these values. n = "
        f"{count(len(study.complete), 'point')}, {study.seeds_text}.{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(page().narrow_in, 2.5)
        axes = figure.subplots()
        axes.plot(
            x_N, y_N, linestyle="none", marker="o", color=_OTHER, markeredgecolor="white", markeredgewidth=0.3
        )
        # Between two points: the value of the one that is at least as good in the first objective.
        where: Literal["pre", "post"] = "pre" if first.is_maximized else "post"
        axes.step(best[first.metric], best[second.metric], where=where, color=GRAY, lw=0.8, zorder=0)
        for _, point in best.iterrows():
            x, y = float(point[first.metric]), float(point[second.metric])
            axes.plot(x, y, linestyle="none", marker="s", color=_BEST, markeredgecolor="white")
            axes.annotate(str(point["number"]), (x, y), (3, 3), textcoords="offset points", fontsize=5.5)
        axes.set_xlabel(f"{_label(first)}, {_better(first)}")
        axes.set_ylabel(f"{_label(second)}, {_better(second)}")
        axes.legend(
            handles=[
                Line2D([], [], linestyle="none", marker="s", color=_BEST, label="Pareto front"),
                Line2D([], [], linestyle="none", marker="o", color=_OTHER, label="other points"),
            ],
            loc="best",
        )
        return figure

    columns = ["number", first.metric, second.metric]
    table = study.complete[columns].assign(is_on_front=study.complete["number"].isin(best["number"]))
    return Drawing("study-front", "Trade-off of the objectives", caption, runs, draw, table)


def _label(objective: RecordedObjective) -> str:
    return _LABELS.get(objective.metric, objective.metric.replace("_", " "))


def _better(objective: RecordedObjective) -> str:
    return "higher is better" if objective.is_maximized else "lower is better"
