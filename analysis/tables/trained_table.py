"""Networks trained from scratch: accuracy, size and speed of each."""

from collections.abc import Sequence

from analysis.measures.accuracy import is_selected_on_test, selection_note
from analysis.measures.measure import Numbers
from analysis.measures.run_measures import LATENCY, TEST_ACCURACY
from analysis.measures.summary import Summary
from analysis.measures.trained_groups import (
    LATENCY_RATIO,
    MEASURED_LATENCY,
    TrainedGroup,
    describe_measurement,
    trained_groups,
)
from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from analysis.tables.result_table import INTERVALS, Column, ResultTable


def trained_table(experiment: Experiment, numbers: Numbers | None = None) -> ResultTable:
    """Makes a row for each network that was trained from scratch, whether a search found it or not.

    Args:
        numbers: not used; tables are called with it.
    """
    groups = trained_groups(experiment)
    if not groups:
        raise (OutOfPlaceError if experiment.is_study else NothingToDrawError)("no network was trained")
    runs = tuple(run for group in groups for run in group.runs)
    config = runs[0].config
    return ResultTable(
        "trained",
        "Networks trained from scratch",
        f"Trained on {config.get('dataset')}, under the same terms unless a row names others. On images: "
        "the mean with the 95 % interval that follows from the number of test images (Wilson). Other "
        f"columns: {INTERVALS}. Table latency: by the lookup table of the search. "
        f"{describe_measurement(groups)} Size: of the file best.pt. Epoch chosen on: the images whose "
        f"accuracy chose the epoch.{selection_note(runs)}{_other_images_note(groups)}",
        (
            Column("network", "network"),
            Column("n", "n"),
            Column("test_accuracy_on_images", "test acc., on images", 4),
            Column("test_accuracy", "test acc., over seeds", 4),
            Column("epoch_chosen_on", "epoch chosen on"),
            Column("parameters_millions", "parameters (M)", 3),
            Column("macs_millions", "MACs (M)", 2),
            Column("table_latency_ms", "table latency (ms)", 3),
            Column(MEASURED_LATENCY, "measured latency (ms)", 3),
            Column(LATENCY_RATIO, "to EfficientNet-B0", 3),
            Column("size_mb", "size (MB)", 2),
        ),
        tuple(
            (
                group.name,
                group.num_seeds,
                group.accuracy_over_images(),
                group.over_seeds(TEST_ACCURACY.name),
                "test images" if any(map(is_selected_on_test, group.runs)) else "held-out images",
                *sizes_in_millions(group),
                group.over_searches(LATENCY.name),
                group.over_seeds(MEASURED_LATENCY),
                group.over_seeds(LATENCY_RATIO),
                group.over_seeds("size_bytes").times(1e-6),
            )
            for group in groups
        ),
        (*experiment.runs, *runs),
    )


def _other_images_note(groups: Sequence[TrainedGroup]) -> str:
    """A sentence, after a space, if searches used other images than the trainings; empty if none did."""
    searched_on = {
        group.name: sorted({run.tag(tags.SEARCHED_ON) for run in group.runs if tags.SEARCHED_ON in run.tags})
        for group in groups
    }
    listed = [f"{name} on {' and '.join(images)}" for name, images in searched_on.items() if images]
    return f" Searched on other images than trained on: {'; '.join(listed)}." if listed else ""


def sizes_in_millions(group: TrainedGroup) -> tuple[Summary, Summary]:
    """Returns parameters and multiply-accumulates of the networks of a row, in millions."""
    return (group.over_seeds("num_parameters").times(1e-6), group.over_seeds("num_macs").times(1e-6))
