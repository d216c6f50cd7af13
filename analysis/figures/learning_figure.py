"""Learning curves of the searches."""

from matplotlib.figure import Figure

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, legend_below, stack_epochs
from analysis.figures.ink.drawing import Drawing, NothingToDrawError, count
from analysis.figures.ink.panels import (
    arrange_panels,
    courses_of,
    drawn_runs,
    missing_note,
    most_courses,
    panel_figure,
)
from analysis.reading.experiment import Experiment

_COURSES = ("sampling", "depth")
_METRICS = {"val_accuracy": "held-out accuracy", "train_loss": "training loss"}


def learning_drawings(experiment: Experiment) -> list[Drawing]:
    """Accuracy on the architecture split and training loss, by epoch."""
    runs = tuple(run for run in experiment.runs if run.epochs is not None)
    if not runs:
        raise NothingToDrawError("no run with metrics.csv")
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=4)
    runs = drawn_runs(panels)
    caption = (
        "Learning curves of the searches: accuracy of the supernet on the images held out for "
        f"architecture steps, and training loss of the first path. {READING} Grey: warm-up. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(
            2 * len(panels), most_courses(experiment, panels, *_COURSES), max_columns=2
        )
        places = iter(all_axes)
        for panel in panels:
            for metric, label in _METRICS.items():
                axes = next(places)
                for course in courses_of(experiment, panel, *_COURSES):
                    epochs, values_NE = stack_epochs(course.runs, metric)
                    draw_course(
                        axes, epochs, values_NE, course.index, f"{course.label}, n = {len(course.runs)}"
                    )
                draw_epoch_axis(axes, panel.runs[0])
                axes.set_title(panel.title, loc="left")
                axes.set_ylabel(label)
                legend_below(axes)
        return figure

    return [Drawing("learning", "Learning curves", caption, runs, draw)]
