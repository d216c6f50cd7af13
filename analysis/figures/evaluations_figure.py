"""Networks that a search evaluated: the best so far, and what a predictor expected of them.

Shapes: V evaluations, N seeds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import kendalltau

from analysis.figures.ink.curves import READING, draw_course, legend_below
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.panels import (
    Course,
    Panel,
    arrange_panels,
    courses_of,
    drawn_runs,
    most_courses,
    panel_figure,
    title_panel,
)
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError, for_grids
from analysis.reading.run import Run

_COURSES = ("method", "evaluation_sample")


@for_grids
def best_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws the best held-out accuracy so far, by evaluation and by second."""
    runs = _evaluating(experiment)
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=4, axes_per_panel=2)
    runs = drawn_runs(panels)
    caption = (
        "Best network so far: the highest held-out accuracy with the weights of the supernet, by evaluation "
        f"(left; {READING[0].lower()}{READING[1:-1]}) and by second, the training of the supernet included "
        "(right; a line per seed). These accuracies choose networks, and are biased by that: what networks "
        f"are worth is seen once they are trained from scratch. n = {count(len(runs), 'trial')}."
        f"{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(
            len(panels), most_courses(experiment, panels, *_COURSES), axes_per_panel=2
        )
        places = iter(all_axes)
        for panel in panels:
            courses = courses_of(experiment, panel, *_COURSES)
            _draw_by_evaluation(next(places), panel, courses)
            _draw_by_second(next(places), panel, courses)
        return figure

    table = tabulate(experiment, runs, _best_rows)
    return [Drawing("best", "Best network so far", caption, runs, draw, table)]


@for_grids
def prediction_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws accuracies against what the predictor expected before."""
    runs = tuple(
        run
        for run in _evaluating(experiment)
        if run.evaluations is not None and run.evaluations["predicted_score"].notna().any()
    )
    if not runs:
        raise OutOfPlaceError("no method that predicts accuracies")
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=6)
    runs = drawn_runs(panels)
    caption = (
        "Prediction and evaluation: held-out accuracy with the weights of the supernet against the predicted "
        "score, a normal score of its rank, from the networks of the rounds before. Circles: networks of the "
        "sample; crosses: the last round, predicted best. Tau is Kendall's, of the networks shown, averaged "
        "over seeds; the measure predictor_tau is an estimate for networks that nobody chose. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(len(panels), most_courses(experiment, panels, *_COURSES))
        for panel, axes in zip(panels, all_axes, strict=True):
            _draw_predictions(axes, panel, courses_of(experiment, panel, *_COURSES))
        return figure

    table = tabulate(experiment, runs, _prediction_rows)
    return [Drawing("prediction", "Prediction and evaluation", caption, runs, draw, table)]


def _best_rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each evaluation."""
    for number, (best, seconds) in enumerate(zip(best_so_far(run), seconds_of(run), strict=True), start=1):
        yield {"evaluation": number, "seconds": seconds, "best_val_accuracy": best}


def _prediction_rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each evaluation of a network with a prediction."""
    assert run.evaluations is not None
    for number, row in run.evaluations.dropna(subset="predicted_score").iterrows():
        yield {"evaluation": number, **row[["epoch", "predicted_score", "val_accuracy"]]}


def best_so_far(run: Run) -> NDArray[np.float64]:
    """Highest accuracy among the first evaluations, for each number of them."""
    assert run.evaluations is not None
    return np.maximum.accumulate(run.evaluations["val_accuracy"].to_numpy(float))


def seconds_of(run: Run) -> NDArray[np.float64]:
    """Seconds from the start of the search to the end of each evaluation.

    Training and rounds are timed; the evaluations of a round share its time equally.
    """
    assert run.evaluations is not None
    assert run.epochs is not None
    seconds = run.epochs["epoch_seconds"].to_numpy(float)
    starts = dict(zip(run.epochs.index, np.concatenate([[0.0], np.cumsum(seconds)[:-1]]), strict=True))
    rounds = run.evaluations["epoch"]
    place = run.evaluations.groupby("epoch").cumcount().to_numpy() + 1
    size = rounds.map(rounds.value_counts()).to_numpy()
    return np.asarray(rounds.map(starts) + rounds.map(run.epochs["epoch_seconds"]) * place / size, float)


def _evaluating(experiment: Experiment) -> tuple[Run, ...]:
    runs = tuple(run for run in experiment.runs if run.evaluations is not None and run.epochs is not None)
    if not runs:
        raise OutOfPlaceError("no method that evaluates networks")
    return runs


def _draw_by_evaluation(axes: Axes, panel: Panel, courses: Sequence[Course]) -> None:
    for course in courses:
        length = min(len(best_so_far(run)) for run in course.runs)
        best_NV = np.stack([best_so_far(run)[:length] for run in course.runs])
        draw_course(
            axes, np.arange(1, length + 1), best_NV, course.style, f"{course.label}, n = {len(best_NV)}"
        )
    title_panel(axes, panel.title)
    axes.set(xlabel="evaluations", ylabel="best held-out accuracy")
    legend_below(axes)


def _draw_by_second(axes: Axes, panel: Panel, courses: Sequence[Course]) -> None:
    for course in courses:
        style = course.style
        for run in course.runs:
            axes.step(
                seconds_of(run),
                best_so_far(run),
                where="post",
                color=style.color,
                linestyle=style.dashes,
                lw=0.8,
                label=course.label if run is course.runs[0] else None,
            )
    axes.set_xlim(left=0)
    title_panel(axes, panel.title)
    axes.set(xlabel="seconds, training included", ylabel="best held-out accuracy")
    legend_below(axes)


def _draw_predictions(axes: Axes, panel: Panel, courses: Sequence[Course]) -> None:
    for course in courses:
        style = course.style
        tables = [
            run.evaluations.dropna(subset="predicted_score")
            for run in course.runs
            if run.evaluations is not None
        ]
        for table in tables:
            is_last = table["epoch"] == table["epoch"].max()
            for rows, marker in ((table[~is_last], "o"), (table[is_last], "x")):
                axes.plot(
                    rows["predicted_score"],
                    rows["val_accuracy"],
                    marker,
                    color=style.color,
                    ms=3,
                    alpha=0.6,
                    mew=0.6,
                )
        taus = [kendalltau(table["predicted_score"], table["val_accuracy"]).statistic for table in tables]
        axes.plot([], [], "o", color=style.color, ms=3, label=f"{course.label}: tau {np.nanmean(taus):.2f}")
    title_panel(axes, panel.title)
    axes.set(xlabel="predicted score", ylabel="held-out accuracy")
    legend_below(axes)
