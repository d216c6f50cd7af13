"""Elasticity-scaling: scales the widths of a derived network until it meets its latency target.

A phase walks in steps. Step k gives layer j the width clip(width_j + direction * k * r_j). One table
lookup per layer therefore yields the latencies of the whole walk, which ends at the first step that
crosses the target.

Source: TF-NAS, elasticity-scaling (width level).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.foundation.errors import InfeasibleTargetError
from nas.latency.table import LatencyTable
from nas.space.architecture import Architecture

Widths = NDArray[np.int64]

MAX_LATENCY_ERROR_PERCENT = 1.0
"""A network that is no further from its target meets it."""

_ROUNDING_MS = 1e-9
"""Rounding error of a sum of differences; this much of the budget stays unused."""


def latency_error_percent(latency_ms: float, target_latency_ms: float) -> float:
    """How far a latency is from its target; positive above it."""
    return (latency_ms / target_latency_ms - 1) * 100


@dataclass(frozen=True)
class ScalingPhase:
    """One phase of a scaling.

    Attributes:
        name: `shrink`, `expand` or `refine`.
        first_stage: the phase changes the layers of this stage (counted from 0) and of later ones.
        num_steps: steps taken.
        latency_ms: latency after the phase.
        is_saturated: whether every included width is at its bound.
    """

    name: str
    first_stage: int
    num_steps: int
    latency_ms: float
    is_saturated: bool


@dataclass(frozen=True)
class ScalingReport:
    """The outcome of a scaling.

    Attributes:
        architecture: the scaled network; of an infeasible target, the nearest one.
        initial_latency_ms: latency before.
        phases: in order; the first is over all stages.
        reachable_ms: lowest and highest latency that the widths allow.
        is_feasible: whether the target lies within and was met from below.
    """

    architecture: Architecture
    initial_latency_ms: float
    phases: tuple[ScalingPhase, ...]
    reachable_ms: tuple[float, float]
    is_feasible: bool

    @property
    def latency_ms(self) -> float:
        """Latency of the scaled network."""
        return self.phases[-1].latency_ms if self.phases else self.initial_latency_ms

    def meets(self, target_latency_ms: float) -> bool:
        """Whether the scaled network is within 1 % of the target."""
        error_percent = latency_error_percent(self.latency_ms, target_latency_ms)
        return abs(error_percent) <= MAX_LATENCY_ERROR_PERCENT

    @property
    def is_at_bound(self) -> bool:
        """Whether every width is at its lower bound, or every one at its upper bound."""
        ends = [
            (width == low, width == high)
            for layer, op, width in self.architecture.layers
            for low, high in [op.width_interval(layer.in_channels)]
        ]
        return any(map(all, zip(*ends, strict=True)))

    @property
    def latencies_ms(self) -> tuple[float, ...]:
        """Latency before the scaling, then after each phase."""
        return self.initial_latency_ms, *(phase.latency_ms for phase in self.phases)


class _Scaler:
    """Widths and latency curves of an architecture's layers, and the walks over them.

    Shapes: K steps of a walk, L kept layers.
    """

    def __init__(self, architecture: Architecture, table: LatencyTable) -> None:
        layers = architecture.layers
        self.base_ms = table.base_latency_ms
        self.curves = [table.curve_ms(layer, op) for layer, op, _ in layers]
        self.stages = np.array([layer.stage for layer, _, _ in layers], dtype=np.int64)
        self.widths: Widths = np.array([width for _, _, width in layers], dtype=np.int64)
        intervals = [op.width_interval(layer.in_channels) for layer, op, _ in layers]
        self.low, self.high = np.array(intervals, dtype=np.int64).reshape(-1, 2).T

    def latencies_ms(self, widths_KL: Widths) -> NDArray[np.float64]:
        layers_ms = (curve[widths_KL[:, layer]] for layer, curve in enumerate(self.curves))
        return self.base_ms + sum(layers_ms, start=np.zeros(len(widths_KL)))

    def latency_ms(self, widths: Widths) -> float:
        return float(self.latencies_ms(widths[None])[0])

    @property
    def reachable_ms(self) -> tuple[float, float]:
        # Not simply those of the lowest and the highest widths: published curves may fall.
        ranges = [
            curve[low : high + 1] for curve, low, high in zip(self.curves, self.low, self.high, strict=True)
        ]
        lows_ms, highs_ms = (sum(float(pick(each)) for each in ranges) for pick in (np.min, np.max))
        return self.base_ms + lows_ms, self.base_ms + highs_ms

    def walk(self, direction: int, first_stage: int, target_ms: float) -> ScalingPhase:
        """Shrinks to the first widths at or below the target, or expands to the last such widths."""
        included = self.stages >= first_stage
        bound = self.high if direction > 0 else self.low
        steps_KL = self._steps(direction, included, bound)
        latencies_K = self.latencies_ms(steps_KL)
        crossed_K = latencies_K > target_ms if direction > 0 else latencies_K <= target_ms
        last = int(crossed_K.argmax()) if crossed_K.any() else len(steps_KL)
        num_steps = max(last - 1, 0) if direction > 0 else min(last, len(steps_KL) - 1)
        self.widths = steps_KL[num_steps]
        return ScalingPhase(
            "expand" if direction > 0 else "shrink",
            first_stage,
            num_steps,
            self.latency_ms(self.widths),
            bool((self.widths == bound)[included].all()),
        )

    def _steps(self, direction: int, included: NDArray[np.bool_], bound: Widths) -> Widths:
        """Widths after 0, 1, 2, ... steps, until every included width is at its bound."""
        if not included.any():
            return self.widths[None]
        ratios = np.rint(self.widths / self.widths[included].min()).astype(np.int64) * included
        room = np.abs(bound - self.widths)[included]
        num_steps = int((-(-room // ratios[included])).max())
        steps_K1 = np.arange(num_steps + 1)[:, None]
        widths_KL: Widths = np.clip(self.widths + direction * steps_K1 * ratios, self.low, self.high)
        return widths_KL

    def refine(self, target_ms: float) -> ScalingPhase:
        """Widens single layers, always by the step that best fills the remaining budget."""
        num_steps = 0
        budget_ms = target_ms - self.latency_ms(self.widths)
        while True:
            best_gain_ms, best_layer, best_width = 0.0, -1, 0
            for layer, curve in enumerate(self.curves):
                first = self.widths[layer]
                gains_ms = curve[first + 1 : self.high[layer] + 1] - curve[first]
                fits = np.where(gains_ms <= budget_ms - _ROUNDING_MS, gains_ms, -np.inf)
                if len(fits) and fits.max() > best_gain_ms:
                    best_gain_ms, best_layer = float(fits.max()), layer
                    best_width = int(first) + 1 + int(fits.argmax())
            if best_layer < 0:
                break
            self.widths = self.widths.copy()
            self.widths[best_layer] = best_width
            budget_ms = target_ms - self.latency_ms(self.widths)
            num_steps += 1
        saturated = bool((self.widths == self.high).all())
        return ScalingPhase("refine", 0, num_steps, self.latency_ms(self.widths), saturated)


def elasticity_scaling(
    architecture: Architecture,
    table: LatencyTable,
    target_latency_ms: float,
    *,
    refine: bool = False,
) -> ScalingReport:
    """Scales the widths of a derived network to a latency target, and reports what it did.

    The first phase scales all stages together. It shrinks them until the latency is at or below the
    target, or expands them as long as it stays there. Then, for each later stage s in turn, a phase
    expands only stages s and later. One step changes a layer's width by round(width / lowest width among
    the included layers), with the widths at the start of the phase.

    Args:
        target_latency_ms: if infeasible, the result is the nearest network and `is_feasible` is False.
        refine: adds a last phase beyond the paper, which widens single layers, best fit first.

    Source: TF-NAS, elasticity-scaling.
    """
    scaler = _Scaler(architecture, table)
    initial_latency_ms = scaler.latency_ms(scaler.widths)
    direction = -1 if initial_latency_ms > target_latency_ms else 1
    phases = [scaler.walk(direction, 0, target_latency_ms)]
    is_met = phases[0].latency_ms <= target_latency_ms
    num_stages = len(architecture.stages)
    if is_met:
        phases += [scaler.walk(1, stage, target_latency_ms) for stage in range(1, num_stages)]
    if is_met and refine:
        phases.append(scaler.refine(target_latency_ms))
    low_ms, high_ms = scaler.reachable_ms
    return ScalingReport(
        architecture.with_widths([int(width) for width in scaler.widths]),
        initial_latency_ms,
        tuple(phases),
        scaler.reachable_ms,
        is_feasible=is_met and low_ms <= target_latency_ms <= high_ms,
    )


def scale_to_latency(
    architecture: Architecture,
    table: LatencyTable,
    target_latency_ms: float,
    *,
    refine: bool = False,
) -> Architecture:
    """Scales the widths of a derived network until it meets a latency target from below.

    Raises:
        InfeasibleTargetError: no widths of these operators reach the target. The error names the
            reachable interval. (`elasticity_scaling` returns the nearest network instead.)
    """
    report = elasticity_scaling(architecture, table, target_latency_ms, refine=refine)
    if not report.is_feasible:
        low_ms, high_ms = report.reachable_ms
        raise InfeasibleTargetError(
            f"target_latency_ms: {target_latency_ms:g}; widths can bring this network to "
            f"{low_ms:.4g} to {high_ms:.4g} ms; choose a target in between",
            report.reachable_ms,
        )
    return report.architecture
