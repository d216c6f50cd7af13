"""Measurement of a lookup table in minutes: operators timed in place, at few widths, without drift.

An operator alone in a loop finds its weights and activations in the cache; an operator in a network
does not. So operators are timed within networks that run end to end (see `campaign`). The sum over a
table's entries is then the time that a network takes.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch

from nas.foundation.device import resolve_device
from nas.latency.campaign import Campaign, TablePoint, Timings, count_points, count_widths, initial_points
from nas.latency.drift import Timing
from nas.latency.entry import LatencyEntry, OpKey
from nas.latency.quiet import quiet_machine
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import default_batch_size, describe_conditions, device_name, timing_conditions
from nas.latency.widths import next_widths
from nas.space.macro_space import Space

MAX_DURATION_S = 900.0
"""After this time, no further repeats or widths are measured, unless one asks for more."""

NUM_VISITS = 2
"""Visits of each point, in different networks and at different times: a single one may hit a bad moment."""

_MIN_ERROR = 0.002


def measure_table(
    space: Space,
    *,
    device: str | torch.device = "cpu",
    num_threads: int = 1,
    batch_size: int | None = None,
    num_classes: int = 1000,
    max_duration_s: float = MAX_DURATION_S,
    seed: int = 0,
    even_if_busy: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> LatencyTable:
    """Measures the lookup table of a space on this machine, once it is quiet.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        num_threads: threads on the CPU.
        batch_size: images at a time; None for 1 on the CPU and 32 on CUDA.
        num_classes: outputs of the classifier, which is part of the base.
        max_duration_s: after this time, no further repeats or widths are measured.
        seed: seeds the composition of the measurement networks.
        even_if_busy: whether to measure though other processes use the machine; the table records it.
        report: receives a progress line now and then.

    Raises:
        UserError: there is no such device; or the machine is busy and stays so, or was busy meanwhile.
    """
    device = resolve_device(device)
    batch_size = batch_size or default_batch_size(device.type)
    with quiet_machine(device, even_if_busy=even_if_busy, report=report) as meter:
        start_s = time.monotonic()
        campaign = Campaign(
            space,
            device,
            batch_size=batch_size,
            num_classes=num_classes,
            max_duration_s=max_duration_s,
            seed=seed,
        )
        with timing_conditions(num_threads):
            _measure_points(campaign, report)
    load = meter.load()
    timings = campaign.timings()
    base = timings.pop(None)
    points = timings.values()
    return LatencyTable(
        space=space.name,
        base_ms=base.median_ms,
        base_iqr_ms=base.iqr_ms,
        provenance=Provenance(
            source="measured",
            device_type=device.type,
            device_name=device_name(device),
            num_threads=num_threads,
            batch_size=batch_size,
            num_classes=num_classes,
            torch_version=str(torch.__version__),
            conditions=describe_conditions(device),
            measured_on=datetime.now(UTC).isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - start_s, 1),
            num_repeats=int(np.median([point.num_repeats for point in points])),
            spread_percent=float(np.median([100 * point.iqr_ms / point.median_ms for point in points])),
            num_busy_cpus=load.num_busy_cpus,
            num_cpus=load.num_cpus,
        ),
        entries=tuple(_entry(key, curve) for key, curve in _curves(timings).items()),
    )


def _measure_points(campaign: Campaign, report: Callable[[str], None]) -> None:
    """Measures the initial widths, then widths where the table is least certain, then all until precise."""
    points, num_widths = initial_points(campaign.space), count_widths(campaign.space)
    max_points = count_points(campaign.space)
    num_known = 0
    while len(points) > num_known and not (num_known and campaign.is_over):
        report(f"measuring {len(points) - num_known} points beside {num_known} of {num_widths}")
        for _ in range(NUM_VISITS):
            campaign.visit(points[num_known:])
        num_known = len(points)
        # Doubling lets each choice use the outcome of the previous one, in few rounds.
        points += _uncertain_points(campaign.timings(), min(max_points, 2 * num_known) - num_known)
    while (imprecise := campaign.imprecise_points()) and not campaign.is_over:
        report(f"repeating {len(imprecise)} of {num_known} points")
        campaign.visit(imprecise)


def _uncertain_points(timings: Timings, number: int) -> list[TablePoint]:
    """At most `number` points where interpolation is least certain."""
    candidates = []
    for key, curve in _curves(timings).items():
        widths, medians_ms = np.array(sorted(curve)), np.array([curve[w].median_ms for w in sorted(curve)])
        candidates += [
            (uncertainty, TablePoint(key, width)) for uncertainty, width in next_widths(widths, medians_ms)
        ]
    candidates.sort(key=lambda candidate: candidate[0], reverse=True)
    return [point for _, point in candidates[:number]]


def _curves(
    timings: Timings,
) -> dict[OpKey, dict[int, Timing]]:
    curves: dict[OpKey, dict[int, Timing]] = defaultdict(dict)
    for point, timing in timings.items():
        if point is not None:
            curves[point.key][point.mid_channels] = timing
    return curves


def _entry(key: OpKey, curve: dict[int, Timing]) -> LatencyEntry:
    # Imported here: scipy is slow to import, and only measuring needs it.
    from scipy.optimize import isotonic_regression

    widths = sorted(curve)
    medians_ms = [curve[width].median_ms for width in widths]
    # More channels are more work. If a wider point is faster, noise or a lucky alignment did it, and
    # elasticity-scaling must not chase it. Uncertain medians weigh less.
    errors_ms = np.array([curve[width].relative_error for width in widths]) * medians_ms
    weights = 1 / np.maximum(errors_ms, _MIN_ERROR * np.mean(medians_ms)) ** 2
    rising_ms = isotonic_regression(medians_ms, weights=weights).x
    return LatencyEntry(
        key=key,
        widths=tuple(widths),
        latency_ms=tuple(map(float, rising_ms)),
        median_ms=tuple(medians_ms),
        iqr_ms=tuple(curve[width].iqr_ms for width in widths),
        num_repeats=tuple(curve[width].num_repeats for width in widths),
    )
