"""Which trials a claim compares: pairs of the same seed, and what becomes of each seed.

A seed is the unit of replication. If the cells of a grid differ in other factors too, the pairs of each
seed are averaged, so n is never larger than the number of seeds.

Shapes: N seeds with all their pairs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.measures.latency_error import TARGET
from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.registration import Registration
from analysis.reading.run import SEED, Run
from analysis.reading.values import Value
from analysis.verdicts.claim import Claim

ValueOf = Callable[[Run], float]
Pair = tuple[Run, Run]
"""A treated and a baseline run."""


@dataclass(frozen=True)
class Contrast:
    """Two settings to compare, within a third; the part of a claim that chooses trials."""

    baseline: Mapping[str, Value]
    treated: Mapping[str, Value]
    within: Mapping[str, Value]
    by_latency: bool = False

    @classmethod
    def of(cls, claim: Claim) -> "Contrast":
        """Returns the contrast of a claim."""
        return cls(claim.baseline, claim.treated, claim.within, claim.match == "latency")

    def treats(self, run: Run) -> bool:
        """Whether a run is on the treated side."""
        return _has(run, self.treated) and _has(run, self.within)

    def is_baseline(self, run: Run) -> bool:
        """Whether a run is on the baseline side."""
        return _has(run, self.baseline) and _has(run, self.within)

    def others(self, experiment: Experiment) -> tuple[str, ...]:
        """The factors in which the runs of a pair agree, besides the seed."""
        target = (TARGET,) if self.by_latency else ()
        return experiment.other_factors(*self.treated, *self.within, *target)


@dataclass(frozen=True)
class SeedPairs:
    """The pairs of one seed.

    Attributes:
        waiting_for: cells that have not ended yet.
        unmatched: finished baseline trials for which no treated trial is as fast.
        unpaired: failed trials whose partner is unknown, because pairs depend on latencies.
    """

    seed: Value
    pairs: tuple[Pair, ...]
    waiting_for: tuple[Run, ...] = ()
    unmatched: tuple[Run, ...] = ()
    unpaired: tuple[Run, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of its pairs."""
        return tuple(run for pair in self.pairs for run in pair)


@dataclass(frozen=True)
class Comparison:
    """A measure of treated and baseline trials, by seed.

    Attributes:
        value_of: the measure; NaN where a run has none.
        is_to_come: whether a finished run without a value may still get one.
    """

    seeds: tuple[SeedPairs, ...]
    value_of: ValueOf
    is_to_come: Callable[[Run], bool]

    @cached_property
    def open_seeds(self) -> tuple[SeedPairs, ...]:
        """Seeds with a cell that has not ended, or whose measure is still to come."""
        return tuple(filter(self._is_open, self.seeds))

    @cached_property
    def ended_seeds(self) -> tuple[SeedPairs, ...]:
        """The others."""
        return tuple(each for each in self.seeds if not self._is_open(each))

    @cached_property
    def lost_runs(self) -> tuple[Run, ...]:
        """Runs of ended seeds without a value: they failed, or the measure is undefined for them."""
        lost = [run for each in self.ended_seeds for run in (*each.runs, *each.unpaired) if self._lacks(run)]
        return tuple({run.run_id: run for run in lost}.values())

    @cached_property
    def complete_seeds(self) -> tuple[SeedPairs, ...]:
        """Ended seeds that lost nothing."""
        return tuple(
            each
            for each in self.ended_seeds
            if each.pairs and not each.unpaired and not any(map(self._lacks, each.runs))
        )

    @property
    def num_pairs(self) -> int:
        """Number of pairs before those of each seed were averaged."""
        return sum(len(each.pairs) for each in self.complete_seeds)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs behind the differences."""
        return tuple({run.run_id: run for each in self.complete_seeds for run in each.runs}.values())

    @cached_property
    def difference_N(self) -> NDArray[np.float64]:
        """Treated minus baseline, the mean over the pairs of each complete seed."""
        return np.array(
            [
                np.mean(
                    [self.value_of(treated) - self.value_of(baseline) for treated, baseline in each.pairs]
                )
                for each in self.complete_seeds
            ],
            np.float64,
        )

    def differences_at_worst(self, sign: float) -> NDArray[np.float64]:
        """Returns the differences of all ended seeds, with lost trials at the worst value that was seen.

        Args:
            sign: of the claimed direction.
        """
        seen = [self.value_of(run) for each in self.ended_seeds for run in each.runs]
        low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
        worst_treated, worst_baseline = (low, high) if sign > 0 else (high, low)

        def difference(pair: Pair) -> float:
            treated, baseline = (
                worst if self._lacks(run) else self.value_of(run)
                for run, worst in zip(pair, (worst_treated, worst_baseline), strict=True)
            )
            return float(treated - baseline)

        return np.array(
            [
                # Pairs by latency depend on all trials, so with one lost any of them may be wrong.
                worst_treated - worst_baseline
                if each.unpaired
                else np.mean(list(map(difference, each.pairs)))
                for each in self.ended_seeds
                if each.pairs or each.unpaired
            ],
            np.float64,
        )

    def side_mean(self, value_of: ValueOf, side: int) -> float:
        """Returns the mean of another measure over the treated (0) or baseline (1) trials; NaN if unknown."""
        runs = {pair[side].run_id: pair[side] for each in self.complete_seeds for pair in each.pairs}
        values = np.array([value_of(run) for run in runs.values()])
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def _lacks(self, run: Run) -> bool:
        return not run.is_finished or bool(np.isnan(self.value_of(run)))

    def _is_open(self, seed: SeedPairs) -> bool:
        return bool(seed.waiting_for) or any(
            run.is_finished and self._lacks(run) and self.is_to_come(run) for run in seed.runs
        )


def pair_seeds(
    experiment: Experiment, contrast: Contrast, latency_ms: ValueOf, num_seeds: int | None = None
) -> tuple[SeedPairs, ...]:
    """Returns the pairs of each of the first seeds of the grid, with cells that are not finished.

    Args:
        latency_ms: of a run's derived network, for pairs by latency.
        num_seeds: how many seeds; None for all.
    """
    others = contrast.others(experiment)
    pair = _pair_by_latency if contrast.by_latency else _pair_by_setting
    by_seed = _sides_by_seed(experiment.grid_cells, contrast, others, experiment.registered)
    return tuple(pair(seed, *both, others, latency_ms) for seed, both in by_seed)[:num_seeds]


def sides(
    cells: Iterable[Run], claim: Claim, others: Sequence[str], registration: Registration | None
) -> frozenset[str]:
    """Returns the hashes of the cells that a claim compares, begun or not.

    Args:
        others: factors in which both sides agree.
        registration: its order of seeds counts; None for the order of the cells.
    """
    by_seed = _sides_by_seed(cells, Contrast.of(claim), others, registration)
    compared = [[*treated, *baselines] for _, (treated, baselines) in by_seed][: claim.num_seeds]
    return frozenset(run.tag(tags.CELL) for runs in compared for run in runs)


def _sides_by_seed(
    cells: Iterable[Run], contrast: Contrast, others: Sequence[str], registration: Registration | None
) -> Iterator[tuple[Value, tuple[list[Run], list[Run]]]]:
    """Each seed that has both sides, with its treated and its baseline runs."""
    by_seed: dict[Value, list[Run]] = {}
    for run in cells:
        by_seed.setdefault(run.seed, []).append(run)
    for seed in seeds_in_order(by_seed, registration):
        treated = [run for run in by_seed[seed] if contrast.treats(run)]
        baselines = [run for run in by_seed[seed] if contrast.is_baseline(run)]
        both = _of_common_settings(treated, baselines, others)
        if all(both):
            yield seed, both


def seeds_in_order(seeds: Iterable[Value], registration: Registration | None) -> list[Value]:
    """Returns these seeds, in the order of a registered grid if there is one.

    In that order, seeds that are added to a grid later come last.
    """
    present = dict.fromkeys(seeds)
    registered = registration.cells.values() if registration else ()
    return list(dict.fromkeys([*(c[SEED] for c in registered if c.get(SEED) in present), *present]))


def _has(run: Run, setting: Mapping[str, Value]) -> bool:
    return all(name in run.config and run.config[name] == value for name, value in setting.items())


def _has_ended(run: Run) -> bool:
    return run.status in ("FINISHED", "FAILED")


def _of_common_settings(
    treated: Sequence[Run], baselines: Sequence[Run], others: Sequence[str]
) -> tuple[list[Run], list[Run]]:
    """The runs of both sides that have a counterpart in all other factors."""
    common = {run.setting(others) for run in treated} & {run.setting(others) for run in baselines}
    kept_treated, kept_baselines = (
        [run for run in side if run.setting(others) in common] for side in (treated, baselines)
    )
    return kept_treated, kept_baselines


def _pair_by_setting(
    seed: Value, treated: Sequence[Run], baselines: Sequence[Run], others: Sequence[str], latency_ms: ValueOf
) -> SeedPairs:
    partners = {run.setting(others): run for run in baselines}
    pairs = tuple((run, partners[run.setting(others)]) for run in treated)
    waiting = tuple(run for pair in pairs for run in pair if not _has_ended(run))
    return SeedPairs(seed, pairs, waiting)


def _pair_by_latency(
    seed: Value, treated: Sequence[Run], baselines: Sequence[Run], others: Sequence[str], latency_ms: ValueOf
) -> SeedPairs:
    """Pairs each baseline with the slowest treated trial that is as fast, whether it was trained or not."""
    # Which trial is the partner depends on the latencies of all.
    waiting = tuple(run for run in (*treated, *baselines) if not _has_ended(run))
    unpaired = tuple(run for run in (*treated, *baselines) if run.status == "FAILED")
    pairs, unmatched = [], []
    for baseline in baselines:
        if not baseline.is_finished:
            continue
        as_fast = [
            run
            for run in treated
            if run.is_finished
            and run.setting(others) == baseline.setting(others)
            and latency_ms(run) <= latency_ms(baseline)
        ]
        if as_fast:
            pairs.append((max(as_fast, key=latency_ms), baseline))
        else:
            unmatched.append(baseline)
    return SeedPairs(seed, tuple(pairs), waiting, tuple(unmatched), unpaired)
