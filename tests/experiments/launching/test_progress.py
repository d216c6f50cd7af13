import io
import re

import pytest
from rich.console import Console

from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell
from experiments.console import format_duration
from experiments.launching.progress import Progress
from nas.config import SearchConfig, TrainConfig
from nas.search.health import HealthCheck


def make_cell(seed: int) -> SearchCell:
    config = SearchConfig(space="micro", target_latency_ms=1.5, seed=seed, num_epochs=10, num_warmup_epochs=2)
    return SearchCell(f"bi-sink-T1.5-s{seed}", {"seed": seed}, config, "data", {}, "table")


METRICS = {
    "train_loss": 1.2345,
    "val_accuracy": 0.5,
    "derived_latency_ms": 1.456,
    "latency_error_percent": -2.9,
    "epoch_seconds": 30.0,
}


def show(is_terminal: bool) -> str:
    """What a launch of two cells shows, of which one runs and one fails."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=120, color_system=None)
    cells = [make_cell(0), make_cell(1)]
    with Progress(console, cells, num_done=3, num_parallel=2) as progress:
        for cell in cells:
            progress.start(cell)
            progress.add_epoch(cell, 4, METRICS)
        progress.end(cells[1], "FAILED", "DivergedError: [loss] is nan")
    return screen.getvalue()


def test_a_terminal_gets_a_table_of_all_trials() -> None:
    shown = show(is_terminal=True)
    assert "3 of 5 searches done, 1 failed, about 90 s left" in shown
    for text in ("bi-sink-T1.5-s0", "running", "4/10", "1.234", "0.500", "1.46 of 1.5 ms", "3 min", "failed"):
        assert text in shown, text
    assert "bi-sink-T1.5-s1: failed: DivergedError: [loss] is nan" in shown


def test_elsewhere_there_are_plain_lines_and_no_control_characters() -> None:
    shown = show(is_terminal=False)
    assert shown.splitlines() == [
        "bi-sink-T1.5-s0: epoch 4/10, loss 1.234, accuracy 0.500, latency 1.46 of 1.5 ms, 3 min left",
        "bi-sink-T1.5-s1: epoch 4/10, loss 1.234, accuracy 0.500, latency 1.46 of 1.5 ms, 3 min left",
        "bi-sink-T1.5-s1: failed: DivergedError: [loss] is nan",
    ]


SOUND = HealthCheck("depth", True, "the derived network has 12 layers", "")
FAILED = [
    HealthCheck("latency", False, "[the latency] is 5 % too high", "raise latency_weight"),
    HealthCheck("widths", False, "every width is at its lower bound", "raise target_latency_ms"),
]


def show_ends(is_terminal: bool, **options: bool) -> str:
    """What a launch shows of a healthy search, of an unhealthy one, and of one that still runs."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=120, color_system=None)
    cells = [make_cell(seed) for seed in range(3)]
    with Progress(console, cells, num_done=0, num_parallel=3, **options) as progress:
        for cell in cells:
            progress.start(cell)
        for cell, checks in zip(cells, ([SOUND], [FAILED[0], SOUND, FAILED[1]]), strict=False):
            progress.show_health(cell, checks)
            progress.end(cell, "FINISHED", None)
    return screen.getvalue()


def test_a_line_tells_that_a_search_is_healthy_and_one_for_each_finding_that_it_is_not() -> None:
    assert show_ends(is_terminal=False).splitlines() == [
        "bi-sink-T1.5-s0: finished; healthy",
        "bi-sink-T1.5-s1: finished; unhealthy: [the latency] is 5 % too high; raise latency_weight",
        "bi-sink-T1.5-s1: finished; unhealthy: every width is at its lower bound; raise target_latency_ms",
    ]


def test_a_study_names_the_findings_of_a_point_in_one_line() -> None:
    assert show_ends(is_terminal=False, explains_health=False).splitlines() == [
        "bi-sink-T1.5-s0: finished; healthy",
        "bi-sink-T1.5-s1: finished; unhealthy: latency, widths",
    ]


def test_the_table_has_a_column_for_the_health_of_searches() -> None:
    # The last state of the table.
    shown = show_ends(is_terminal=True).rpartition("searches done")[2]
    lines = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown.splitlines()]
    heading, *rows = [line for line in lines if line]
    column = heading.index("health")
    assert {row[0]: row[column] for row in rows if len(row) == len(heading)} == {
        "bi-sink-T1.5-s0": "ok",
        "bi-sink-T1.5-s1": "2 findings",
        "bi-sink-T1.5-s2": "-",
    }


def test_a_search_without_checks_is_just_finished() -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=120), [make_cell(0)], num_done=0, num_parallel=1) as progress:
        progress.end(make_cell(0), "FINISHED", None)
    assert screen.getvalue() == "bi-sink-T1.5-s0: finished\n"


def test_trainings_have_no_column_for_health() -> None:
    config = TrainConfig(architecture="efficientnet_b0", num_epochs=10, dataset="fashion_mnist_subset")
    cell = TrainingCell("train-efficientnet_b0-s0", {}, config, "data", {}, "efficientnet_b0")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with Progress(console, [cell], num_done=0, num_parallel=1):
        pass
    assert "best epoch" in screen.getvalue()
    assert "health" not in screen.getvalue()


def test_trainings_tell_their_best_epoch() -> None:
    config = TrainConfig(architecture="efficientnet_b0", num_epochs=10, dataset="fashion_mnist_subset")
    cell = TrainingCell("train-efficientnet_b0-s0", {}, config, "data", {}, "efficientnet_b0")
    screen = io.StringIO()
    metrics = {"train_loss": 1.2, "val_accuracy": 0.5, "best_epoch": 3.0, "epoch_seconds": 30.0}
    with Progress(Console(file=screen, width=120), [cell], num_done=0, num_parallel=1) as progress:
        progress.start(cell)
        progress.add_epoch(cell, 4, metrics)
    expected = "train-efficientnet_b0-s0: epoch 4/10, loss 1.200, accuracy 0.500, best epoch 3, 3 min left\n"
    assert screen.getvalue() == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (99, "99 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days"), (float("nan"), "?")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected
