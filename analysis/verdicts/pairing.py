"""Which trials a claim compares: pairs of the same seed, and what becomes of each seed.

A seed is the unit of replication. If the cells of a grid differ in other factors too, the pairs of each
seed are averaged, so n is never larger than the number of seeds.

Shapes: N seeds with all their pairs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.measures.latency_error import TARGET
from analysis.reading.experiment import Experiment
from analysis.reading.run import SEED, Run
from analysis.reading.values import Value
from analysis.verdicts.claim import Claim

LATENCY = "derived_latency_ms"

ValueOf = Callable[[Run], float]


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


@dataclass(frozen=True)
class SeedPairs:
    """The pairs of one seed, as (treated, baseline).

    Attributes:
        waiting_for: cells that have not ended yet.
        unmatched: finished baseline trials for which no treated trial is as fast.
        unpaired: failed trials whose partner is unknown, because pairs depend on latencies.
    """

    seed: Value
    pairs: tuple[tuple[Run, Run], ...]
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
        is_to_come: whether a finished run that lacks the measure may still get it.
    """

    seeds: tuple[SeedPairs, ...]
    value_of: ValueOf
    is_to_come: bool = False

    @cached_property
    def open_seeds(self) -> tuple[SeedPairs, ...]:
        """Seeds with a cell that has not ended, or whose measure is still to come."""
        return tuple(
            each
            for each in self.seeds
            if each.waiting_for
            or (self.is_to_come and any(run.is_finished and self._lacks(run) for run in each.runs))
        )

    @cached_property
    def failed_runs(self) -> tuple[Run, ...]:
        """Runs of ended seeds without a value: they failed, or the measure is undefined for them."""
        ended = [each for each in self.seeds if each not in self.open_seeds]
        failed = [run for each in ended for run in (*each.runs, *each.unpaired) if self._lacks(run)]
        return tuple({run.run_id: run for run in failed}.values())

    @cached_property
    def complete_seeds(self) -> tuple[SeedPairs, ...]:
        """Seeds all of whose pairs have values."""
        return tuple(
            each
            for each in self.seeds
            if each.pairs and each not in self.open_seeds and not any(map(self._lacks, each.runs))
        )

    @property
    def num_ended(self) -> int:
        """Number of seeds all of whose cells have ended."""
        return len(self.seeds) - len(self.open_seeds)

    @property
    def num_pairs(self) -> int:
        """Number of pairs before those of each seed were averaged."""
        return sum(len(each.pairs) for each in self.complete_seeds)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs behind the differences."""
        runs = (run for each in self.complete_seeds for run in each.runs)
        return tuple({run.run_id: run for run in runs}.values())

    @cached_property
    def difference_N(self) -> NDArray[np.float64]:
        """Treated minus baseline."""
        return self.differences(self.complete_seeds, self.value_of)

    def side_mean(self, value_of: ValueOf, side: int) -> float:
        """Returns the mean of another measure over the treated (0) or baseline (1) trials; NaN if unknown."""
        runs = {pair[side].run_id: pair[side] for each in self.complete_seeds for pair in each.pairs}
        values = np.array([value_of(run) for run in runs.values()])
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    @staticmethod
    def differences(seeds: Sequence[SeedPairs], value_of: ValueOf) -> NDArray[np.float64]:
        """Returns the mean difference of each seed."""
        return np.array(
            [np.mean([value_of(treated) - value_of(base) for treated, base in each.pairs]) for each in seeds],
            np.float64,
        )

    def _lacks(self, run: Run) -> bool:
        return not run.is_finished or bool(np.isnan(self.value_of(run)))


def pair_seeds(
    experiment: Experiment,
    contrast: Contrast,
    value_of: Mapping[str, ValueOf],
    num_seeds: int | None = None,
    cells: Collection[Run] | None = None,
) -> tuple[SeedPairs, ...]:
    """Returns the pairs of each of the first seeds of the grid, with cells that are not finished.

    Args:
        value_of: measures by name; pairing by latency needs `derived_latency_ms`.
        num_seeds: how many seeds; None for all.
        cells: None for all cells of the experiment.
    """
    cells = experiment.cells if cells is None else cells
    fields = {*contrast.treated, *contrast.within, *((TARGET,) if contrast.by_latency else ())}
    others = experiment.other_factors(*fields)
    cells = [run for run in cells if _is(run, contrast.within)]
    seeds = seeds_in_order(experiment, cells)
    found = []
    for seed in seeds:
        own = [run for run in cells if run.seed == seed]
        treated = [run for run in own if _is(run, contrast.treated)]
        baselines = [run for run in own if _is(run, contrast.baseline)]
        if contrast.by_latency:
            pairs = _pair_by_latency(seed, treated, baselines, others, value_of[LATENCY])
        else:
            pairs = _pair_by_setting(seed, treated, baselines, others)
        if pairs.pairs or pairs.waiting_for or pairs.unmatched or pairs.unpaired:
            found.append(pairs)
    return tuple(found[:num_seeds])


def seeds_in_order(experiment: Experiment, cells: Collection[Run]) -> list[Value]:
    """Returns the seeds of these cells, in the order of the registered grid if there is one.

    In that order, seeds that are added to a grid later come last.
    """
    present = dict.fromkeys(run.seed for run in cells)
    registered = experiment.registered.cells.values() if experiment.registered else ()
    return list(dict.fromkeys([*(c[SEED] for c in registered if c.get(SEED) in present), *present]))


def _is(run: Run, setting: Mapping[str, Value]) -> bool:
    return all(run.config.get(name) == value for name, value in setting.items())


def _has_ended(run: Run) -> bool:
    return run.status in ("FINISHED", "FAILED")


def _pair_by_setting(
    seed: Value, treated: Sequence[Run], baselines: Sequence[Run], others: Sequence[str]
) -> SeedPairs:
    partners = {run.setting(others): run for run in baselines}
    pairs = tuple((run, partners[run.setting(others)]) for run in treated if run.setting(others) in partners)
    waiting = tuple(run for pair in pairs for run in pair if not _has_ended(run))
    return SeedPairs(seed, pairs, waiting)


def _pair_by_latency(
    seed: Value,
    treated: Sequence[Run],
    baselines: Sequence[Run],
    others: Sequence[str],
    latency_ms: ValueOf,
) -> SeedPairs:
    """Pairs each baseline with the slowest treated trial that is as fast, whether it was trained or not."""
    if not treated or not baselines:
        return SeedPairs(seed, ())
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
