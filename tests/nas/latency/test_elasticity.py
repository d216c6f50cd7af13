"""Elasticity-scaling is the published rule, step by step, and meets every feasible target from below."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from nas.foundation.errors import InfeasibleTargetError
from nas.latency.elasticity import ScalingReport, elasticity_scaling, scale_to_latency
from nas.latency.entry import LatencyEntry
from nas.latency.table import LatencyTable
from nas.space.architecture import Architecture, draw_architecture
from nas.space.macro_space import get_space
from nas.space.operators import OPERATORS
from tests.support.tiny import TINY, full_depth_architecture, make_dense_table

NUM_ARCHITECTURES = 40
SPACES = pytest.mark.parametrize("space", ["paper", TINY.name])


class BruteForce:
    """The rule as the spec words it: one step at a time, everything looked up anew."""

    def __init__(self, architecture: Architecture, table: LatencyTable) -> None:
        self.table = table
        self.architecture = architecture
        self.widths = [width for _, _, width in architecture.layers]
        self.stages = [layer.stage for layer, _, _ in architecture.layers]
        self.bounds = [{3: (2, 4), 6: (4, 8)}[op.expansion] for _, op, _ in architecture.layers]
        self.in_channels = [layer.in_channels for layer, _, _ in architecture.layers]

    def latency_ms(self, widths: list[int]) -> float:
        return self.table.latency_ms(self.architecture.with_widths(widths))

    def run(self, target_ms: float) -> list[int]:
        if self.latency_ms(self.widths) > target_ms:
            self.walk(-1, 0, lambda ms: ms <= target_ms, keep_before=False)
        else:
            self.walk(1, 0, lambda ms: ms > target_ms, keep_before=True)
        if self.latency_ms(self.widths) <= target_ms:
            for stage in range(1, len(self.architecture.stages)):
                self.walk(1, stage, lambda ms: ms > target_ms, keep_before=True)
        return self.widths

    def walk(
        self, sign: int, first_stage: int, crosses: Callable[[float], bool], *, keep_before: bool
    ) -> None:
        included = [layer for layer, stage in enumerate(self.stages) if stage >= first_stage]
        if not included:
            return
        smallest = min(self.widths[layer] for layer in included)
        steps = {layer: round(self.widths[layer] / smallest) for layer in included}
        while True:
            if not keep_before and crosses(self.latency_ms(self.widths)):
                return
            widths = list(self.widths)
            for layer in included:
                low, high = (times * self.in_channels[layer] for times in self.bounds[layer])
                widths[layer] = min(max(widths[layer] + sign * steps[layer], low), high)
            if widths == self.widths or (keep_before and crosses(self.latency_ms(widths))):
                return
            self.widths = widths


def at_bounds(architecture: Architecture) -> tuple[Architecture, Architecture]:
    intervals = [op.width_interval(layer.in_channels) for layer, op, _ in architecture.layers]
    low, high = zip(*intervals, strict=True)
    return architecture.with_widths(low), architecture.with_widths(high)


@cache
def cases(space: str, num: int = NUM_ARCHITECTURES) -> list[tuple[Architecture, LatencyTable, float]]:
    """Random networks, each with a target anywhere within reach."""
    rng = np.random.default_rng(0)
    tables = [make_dense_table(get_space(space), seed=seed) for seed in range(3)]
    found = []
    for seed in range(num):
        architecture, table = draw_architecture(get_space(space), rng), tables[seed % 3]
        low_ms, high_ms = (table.latency_ms(bound) for bound in at_bounds(architecture))
        found.append((architecture, table, float(rng.uniform(low_ms, high_ms))))
    return found


def widths_of(architecture: Architecture) -> list[int]:
    return [width for _, _, width in architecture.layers]


@SPACES
def test_the_result_is_that_of_a_walk_one_step_at_a_time(space: str) -> None:
    for architecture, table, target_ms in cases(space):
        scaled = scale_to_latency(architecture, table, target_ms)
        assert widths_of(scaled) == BruteForce(architecture, table).run(target_ms)


@SPACES
@pytest.mark.parametrize("refine", [False, True])
def test_a_feasible_target_is_never_exceeded(space: str, refine: bool) -> None:
    for architecture, table, target_ms in cases(space):
        report = elasticity_scaling(architecture, table, target_ms, refine=refine)
        assert report.is_feasible
        assert report.latency_ms <= target_ms
        assert table.latency_ms(report.architecture) == pytest.approx(report.latency_ms, rel=1e-12)


def test_paper_lands_within_a_thousandth_below_the_target_where_widths_allow() -> None:
    gaps_percent = []
    for architecture, table, target_ms in cases("paper"):
        report = elasticity_scaling(architecture, table, target_ms)
        if not report.phases[-1].is_saturated:
            gaps_percent.append((1 - report.latency_ms / target_ms) * 100)
    assert len(gaps_percent) > NUM_ARCHITECTURES / 2
    assert max(gaps_percent) < 0.1


@SPACES
def test_refinement_only_widens_and_never_lands_farther_away(space: str) -> None:
    for architecture, table, target_ms in cases(space):
        plain = elasticity_scaling(architecture, table, target_ms)
        refined = elasticity_scaling(architecture, table, target_ms, refine=True)
        assert plain.latency_ms <= refined.latency_ms <= target_ms
        pairs = zip(widths_of(plain.architecture), widths_of(refined.architecture), strict=True)
        assert all(before <= after for before, after in pairs)
        assert refined.phases[: len(plain.phases)] == plain.phases


@SPACES
def test_after_refinement_no_single_wider_layer_fits(space: str) -> None:
    for architecture, table, target_ms in cases(space, num=3):
        refined = scale_to_latency(architecture, table, target_ms, refine=True)
        widths = widths_of(refined)
        _, high = at_bounds(refined)
        for layer, highest in enumerate(widths_of(high)):
            for width in range(widths[layer] + 1, highest + 1):
                wider = [*widths[:layer], width, *widths[layer + 1 :]]
                assert table.latency_ms(refined.with_widths(wider)) > target_ms - 1e-8


@SPACES
def test_operators_depths_and_bounds_stay(space: str) -> None:
    for architecture, table, target_ms in cases(space):
        scaled = scale_to_latency(architecture, table, target_ms)
        assert [[c.op for c in stage] for stage in scaled.stages] == [
            [c.op for c in stage] for stage in architecture.stages
        ]
        low, high = at_bounds(architecture)
        rows = zip(widths_of(low), widths_of(scaled), widths_of(high), strict=True)
        assert all(lowest <= width <= highest for lowest, width, highest in rows)


@SPACES
def test_a_target_out_of_reach_gives_the_nearest_network_and_the_interval(space: str) -> None:
    for architecture, table, _ in cases(space, num=10):
        low, high = at_bounds(architecture)
        reachable_ms = (table.latency_ms(low), table.latency_ms(high))
        for target_ms, nearest in ((reachable_ms[0] * 0.99, low), (reachable_ms[1] * 1.01, high)):
            report = elasticity_scaling(architecture, table, target_ms, refine=True)
            assert not report.is_feasible
            assert report.reachable_ms == pytest.approx(reachable_ms, rel=1e-12)
            assert widths_of(report.architecture) == widths_of(nearest)
            with pytest.raises(
                InfeasibleTargetError, match=f"{reachable_ms[0]:.4g} to {reachable_ms[1]:.4g}"
            ):
                scale_to_latency(architecture, table, target_ms)


@SPACES
def test_both_ends_of_the_interval_are_feasible(space: str) -> None:
    for architecture, table, _ in cases(space, num=10):
        low_ms, high_ms = elasticity_scaling(architecture, table, 1.0).reachable_ms
        low, high = at_bounds(architecture)
        assert scale_to_latency(architecture, table, low_ms) == low
        assert scale_to_latency(architecture, table, high_ms) == high


def test_the_latency_after_each_phase_is_reported() -> None:
    architecture, table, target_ms = cases("paper")[0]
    report = elasticity_scaling(architecture, table, target_ms, refine=True)
    assert [phase.first_stage for phase in report.phases] == [0, 1, 2, 3, 4, 5, 0]
    assert [phase.name for phase in report.phases[1:]] == ["expand"] * 5 + ["refine"]
    assert report.latencies_ms[0] == pytest.approx(table.latency_ms(architecture))
    assert report.latencies_ms[-1] == report.latency_ms
    assert all(one <= other for one, other in pairwise(report.latencies_ms[1:]))


def test_where_curves_fall_a_network_that_meets_its_target_is_never_refused_and_no_other_is_returned() -> (
    None
):
    """Imported tables fall in places; they are interpolated, and not smoothed."""
    rng = np.random.default_rng(0)
    for architecture, smooth, _ in cases(TINY.name):
        table = with_noise(smooth, rng)
        ranges = []
        for layer, op, _ in architecture.layers:
            low, high = op.width_interval(layer.in_channels)
            ranges.append([float(table.curve_ms(layer, op)[width]) for width in range(low, high + 1)])
        low_ms = table.base_latency_ms + sum(map(min, ranges))
        high_ms = table.base_latency_ms + sum(map(max, ranges))
        for target_ms in rng.uniform(low_ms - 0.05, high_ms + 0.05, 5):
            report = elasticity_scaling(architecture, table, target_ms, refine=True)
            assert report.reachable_ms == pytest.approx((low_ms, high_ms))
            if report.latency_ms <= target_ms <= high_ms:
                scaled = scale_to_latency(architecture, table, target_ms, refine=True)
                assert table.latency_ms(scaled) <= target_ms
            else:
                with pytest.raises(InfeasibleTargetError):
                    scale_to_latency(architecture, table, target_ms, refine=True)


def with_noise(table: LatencyTable, rng: np.random.Generator) -> LatencyTable:
    entries = tuple(
        LatencyEntry(
            key=entry.key,
            widths=entry.widths,
            latency_ms=tuple(np.abs(entry.latency_ms + rng.normal(0, 0.02, len(entry.widths))).tolist()),
        )
        for entry in table.entries
    )
    return LatencyTable(
        space=table.space, base_ms=table.base_ms, provenance=table.provenance, entries=entries
    )


def test_ratios_are_rounded_from_the_widths_at_the_start_of_a_phase() -> None:
    """Two layers of 16 and 40 mid channels step by 1 and round(2.5) = 2 (to even, as Python rounds)."""
    space = get_space(TINY.name)
    architecture = full_depth_architecture(space, OPERATORS["k3_e6"])
    table = make_dense_table(space)
    narrow = [op.width_interval(layer.in_channels)[0] for layer, op, _ in architecture.layers]
    start = architecture.with_widths([*narrow[:-1], 40])
    assert narrow[0] == 16
    one_step = [width + round(width / 16) for width in [*narrow[:-1], 40]]
    target_ms = table.latency_ms(start.with_widths(one_step))
    first: ScalingReport = elasticity_scaling(start, table, target_ms + 1e-9)
    assert first.phases[0].num_steps == 1
    assert first.phases[0].latency_ms == pytest.approx(target_ms, rel=1e-12)
