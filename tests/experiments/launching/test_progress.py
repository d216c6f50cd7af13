import io
import math
import re
from dataclasses import replace

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
    assert "3 of 5 searches done, 1 failed" in shown
    for text in ("bi-sink-T1.5-s0", "running", "4/10", "0.500", "1.46 of 1.5 ms", "failed"):
        assert text in shown, text
    assert "bi-sink-T1.5-s1: failed: DivergedError: [loss] is nan" in shown


def test_elsewhere_there_are_plain_lines_and_no_control_characters() -> None:
    shown = show(is_terminal=False)
    assert shown.splitlines() == [
        "bi-sink-T1.5-s0: epoch 4/10, loss 1.234, accuracy 0.500, latency 1.46 of 1.5 ms",
        "bi-sink-T1.5-s1: epoch 4/10, loss 1.234, accuracy 0.500, latency 1.46 of 1.5 ms",
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


def test_the_table_marks_the_health_of_searches_and_explains_the_marks() -> None:
    # The last state of the table.
    shown = show_ends(is_terminal=True).rpartition("searches done")[2]
    marks = re.findall(r"^([✓!]?) *(bi-sink-T1.5-s\d)", shown, re.MULTILINE)
    assert sorted(marks, key=lambda one: one[1]) == [
        ("✓", "bi-sink-T1.5-s0"),
        ("!", "bi-sink-T1.5-s1"),
        ("", "bi-sink-T1.5-s2"),
    ]
    assert "✓ healthy   ! has findings" in shown


def test_a_terminal_of_80_columns_shows_all_but_the_ends_of_long_names() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    cell = replace(make_cell(0), name="bi_random-sink-T1.5-objective=proxyless_add-s0")
    with Progress(console, [cell], num_done=0, num_parallel=1) as progress:
        progress.start(cell)
        progress.add_epoch(cell, 9, METRICS)
    last = screen.getvalue().rpartition("searches done")[2].splitlines()
    assert max(map(len, last)) <= 80
    (row,) = (line for line in last if "bi_random" in line)
    assert re.search(r"bi_random-sink-T1.5-obj\S*… +9/10 +0.500 +1.46 of 1.5 ms +running", row)


def follow(warmup_s: float, joint_s: float, *, start_s: float = 4.0) -> list[tuple[float, float]]:
    """After each epoch of six searches, two at a time, that share a warm-up: seconds left, and shown left."""
    cells = [make_cell(seed) for seed in range(6)]
    epochs_s = [warmup_s] * 2 + [joint_s] * 8
    progress = Progress(Console(file=io.StringIO()), cells, 0, 2)
    seen, total_s = [], len(cells) * sum(epochs_s) / 2
    passed_s = 0.0
    for pair in zip(cells[::2], cells[1::2], strict=True):
        for epoch, seconds in enumerate(epochs_s, start=1):
            passed_s += seconds
            for cell in pair:
                progress.start(cell)
                slow_s = start_s if epoch == 1 else 0.0
                progress.add_epoch(cell, epoch, METRICS | {"epoch_seconds": seconds + slow_s})
            seen.append((total_s - passed_s, progress._done_and_left()[1]))
        for cell in pair:
            progress.end(cell, "FINISHED", None)
    return seen


@pytest.mark.parametrize(("warmup_s", "joint_s"), [(1.0, 1.5), (1.0, 2.5), (1.0, 4.0), (10.0, 40.0)])
def test_the_time_left_is_within_a_factor_of_two_from_the_start_and_exact_after_a_joint_epoch(
    warmup_s: float, joint_s: float
) -> None:
    (_, shown_first), *later = follow(warmup_s, joint_s)
    assert math.isnan(shown_first), "the first epoch includes the start of the process"
    assert 0.5 < later[0][1] / later[0][0] < 2
    for true_s, shown_s in later[1:-1]:
        assert shown_s == pytest.approx(true_s, abs=0.01)


def test_waiting_searches_are_not_counted_with_the_warm_up_that_they_take_from_another() -> None:
    first = make_cell(0)
    other = first.config.model_copy(update={"target_latency_ms": 2.0})
    cells = [first, replace(first, name="other", config=other)]
    assert cells[0].warmup == cells[1].warmup
    for shares, expected_s in ((True, 1 * 30 + 8 * 30), (False, 1 * 30 + 10 * 30)):
        progress = Progress(Console(file=io.StringIO()), cells, 0, 1, shares_warmups=shares)
        for epoch in range(1, 10):
            progress.start(cells[0])
            progress.add_epoch(cells[0], epoch, METRICS)
        assert progress._done_and_left()[1] == expected_s


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
    expected = "train-efficientnet_b0-s0: epoch 4/10, loss 1.200, accuracy 0.500, best epoch 3\n"
    assert screen.getvalue() == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (99, "99 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days"), (float("nan"), "?")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected
