"""Check the accuracy of the latency model against its goals, and print a Markdown report.

    python -m benchmarks.latency [--out FOLDER]

It takes 5 to 10 minutes on an idle machine, with one thread. It measures a table of `micro`, a table of
`paper`, widths that the table does not hold, whole networks before and after the correction, and how
repeatable one network is. The tables and plots stay in FOLDER. The exit code is 1 if a goal was missed.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from analysis.figures.calibration_figure import save_calibration
from benchmarks.machine import describe_machine
from nas.latency.calibration import TableCheck, check_predictions, summarize_networks, time_networks_in_turn
from nas.latency.campaign import Campaign, TablePoint
from nas.latency.measurement import measure_table
from nas.latency.quiet import measure_load
from nas.latency.table import LatencyTable, space_keys
from nas.latency.timing import make_images, make_network, timing_conditions
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space

CPU = torch.device("cpu")
SPACE = get_space("paper")
NUM_ENUMERATED = 36_480
NUM_HELD_OUT = 100
NUM_NETWORKS = 30

Row = tuple[str, str, str, bool | None]
"""What was measured, the goal, the result, and whether it meets the goal (None: for information)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/bench-latency"), metavar="FOLDER")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    before = _machine_state()
    rows: list[Row] = []
    for measure in (_micro_rows, _paper_rows):
        for row in measure(folder):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    report = _report(rows, before, _machine_state())
    (folder / "report.md").write_text(report, encoding="utf-8")
    print(report)
    sys.exit(any(is_reached is False for *_, is_reached in rows))


def _micro_rows(folder: Path) -> Iterator[Row]:
    start_s = time.monotonic()
    command = "from experiments.cli.main import main; main()"
    arguments = [
        "latency",
        "measure",
        "--space",
        "micro",
        "--out",
        str(folder / "micro.json"),
        "--even-if-busy",
    ]
    subprocess.run([sys.executable, "-c", command, *arguments], check=True)
    duration_s = time.monotonic() - start_s
    yield "table of `micro`, the whole command", "<= 15 s", f"{duration_s:.1f} s", duration_s <= 15
    table = LatencyTable.load(folder / "micro.json")
    yield from _agreement_rows("`micro`", table, folder, is_goal=False)


def _paper_rows(folder: Path) -> Iterator[Row]:
    start_s = time.monotonic()
    table = measure_table(SPACE, num_threads=1, batch_size=1, even_if_busy=True, report=_progress)
    duration_s = time.monotonic() - start_s
    table.save(folder / "paper.json")
    num_points = sum(len(entry.widths) for entry in table.entries)
    num_widths = sum(high - low + 1 for low, high in space_keys(SPACE).values())
    share = num_points / NUM_ENUMERATED
    yield (
        "table of `paper`, batch 1, one thread",
        "<= 20 min",
        f"{duration_s / 60:.1f} min",
        duration_s <= 1200,
    )
    yield (
        "points measured, as a share of a full enumeration",
        "<= 5 %",
        f"{num_points} of {NUM_ENUMERATED:,}: {100 * share:.1f} % "
        f"({100 * num_points / num_widths:.1f} % of the {num_widths:,} widths the space can use)",
        share <= 0.05,
    )
    provenance = table.provenance
    yield (
        "repeats of a point (median), their interquartile range (median)",
        "",
        f"{provenance.num_repeats}, {provenance.spread_percent:.1f} %",
        None,
    )
    yield from _held_out_rows(table)
    yield from _agreement_rows("`paper`", table, folder, is_goal=True)
    yield from _repeatability_rows()


def _held_out_rows(table: LatencyTable) -> Iterator[Row]:
    """Measures widths that the table interpolates, next to widths that it holds."""
    rng = np.random.default_rng(1)
    measured = [TablePoint(entry.key, width) for entry in table.entries for width in entry.widths]
    known = set(measured)
    others = [
        TablePoint(key, width)
        for key, (low, high) in space_keys(SPACE).items()
        for width in range(low, high + 1)
        if TablePoint(key, width) not in known
    ]
    chosen = [others[index] for index in rng.choice(len(others), NUM_HELD_OUT, replace=False)]
    campaign = Campaign(SPACE, CPU, batch_size=1, num_classes=1000, seed=2)
    with timing_conditions(1):
        # First visit points of every shape: they then fill the layers next to the chosen points.
        campaign.visit([measured[index] for index in rng.permutation(len(measured))[:300]])
        campaign.visit(chosen)
        while imprecise := set(campaign.imprecise_points()) & set(chosen):
            campaign.visit(sorted(imprecise, key=str))
    timings = campaign.timings()
    fresh_ms = np.array([timings[point].median_ms for point in chosen])
    curves = {entry.key: entry.curve_ms for entry in table.entries}
    table_ms = np.array([curves[point.key][point.mid_channels] for point in chosen])
    errors = table_ms / fresh_ms - 1
    median = 100 * float(np.median(np.abs(errors)))
    yield (
        f"interpolated against fresh measurements, {NUM_HELD_OUT} held-out widths, median",
        "<= 3 %",
        f"{median:.2f} %",
        median <= 3,
    )
    scale = 100 * float(np.median(errors))
    rest = 100 * float(np.median(np.abs((1 + errors) / (1 + scale / 100) - 1)))
    yield (
        "... the error common to all of them, and the rest without it",
        "",
        f"{scale:+.2f} %, {rest:.2f} %",
        None,
    )


def _agreement_rows(name: str, table: LatencyTable, folder: Path, *, is_goal: bool) -> Iterator[Row]:
    """Checks the table as measured, then with its correction on other networks."""
    # However busy the machine is: the report says so.
    options = {"num_networks": NUM_NETWORKS, "even_if_busy": True, "report": _progress}
    check = check_predictions(table, seed=3, **options)
    yield from _check_rows(f"{name}, {NUM_NETWORKS} networks", check, is_goal=is_goal)
    save_calibration("as measured", table, check, folder / f"{table.space}.png")
    corrected = table.with_calibration(check.calibration)
    corrected.save(folder / f"{table.space}-corrected.json")
    correction = check.calibration
    yield (
        f"{name}, correction fitted to them",
        "",
        f"{correction.slope:.3f} x {correction.intercept_ms:+.3f} ms, left-out error "
        f"{correction.mape_percent:.2f} %, 95 % interval ±{correction.half_width_percent:.1f} %",
        None,
    )
    again = check_predictions(corrected, seed=4, **options)
    yield from _check_rows(f"{name}, corrected, {NUM_NETWORKS} other networks", again, is_goal=is_goal)
    save_calibration("corrected", corrected, again, folder / f"{table.space}-corrected.png")


def _check_rows(name: str, check: TableCheck, *, is_goal: bool) -> Iterator[Row]:
    agreement = check.agreement
    yield (
        f"{name}: mean absolute error",
        "<= 5 %",
        f"{agreement.mape_percent:.2f} % (bias {agreement.bias_percent:+.2f} %)",
        agreement.mape_percent <= 5 if is_goal else None,
    )
    yield (
        f"{name}: Spearman",
        ">= 0.98",
        f"{agreement.spearman:.4f} (Kendall tau {agreement.kendall_tau:.3f})",
        agreement.spearman >= 0.98 if is_goal else None,
    )


def _repeatability_rows() -> Iterator[Row]:
    """Measures copies of one network as if they were different networks. No prediction can do better."""
    architecture = Architecture.load(Path("nas/space/architectures/tf-nas-a.json"))
    images_BCHW = make_images(SPACE.resolution, 1, CPU)
    networks = [(make_network(architecture, 1000, CPU), images_BCHW) for _ in range(NUM_NETWORKS)]
    times_RNK = time_networks_in_turn(networks, num_threads=1, rng=np.random.default_rng(5), report=_progress)
    medians_ms = np.array([timing.median_ms for timing in summarize_networks(times_RNK)])
    deviation = 100 * np.abs(medians_ms / np.median(medians_ms) - 1).mean()
    rounds_ms = np.median(times_RNK, axis=(1, 2))
    yield (
        f"one network (TF-NAS-A), {NUM_NETWORKS} copies measured the same way: mean absolute deviation",
        "",
        f"{deviation:.2f} % of {np.median(medians_ms):.1f} ms",
        None,
    )
    yield (
        "... range of its median from round to round",
        "",
        f"{rounds_ms.min():.1f} to {rounds_ms.max():.1f} ms",
        None,
    )


def _machine_state() -> str:
    return f"{describe_machine()}; other processes use {measure_load().num_busy_cpus:.2f} CPUs"


def _report(rows: list[Row], before: str, after: str) -> str:
    marks = {True: "reached", False: "**missed**", None: ""}
    lines = [
        "# Latency model: accuracy",
        "",
        "One thread, batch 1.",
        "",
        f"- Before: {before}",
        f"- After: {after}",
        "",
        "| what | goal | measured | |",
        "|---|---|---|---|",
        *(f"| {what} | {goal} | {value} | {marks[is_reached]} |" for what, goal, value, is_reached in rows),
        "",
    ]
    return "\n".join(lines)


def _progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
