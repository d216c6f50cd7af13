"""Whether a claim was registered before the first of its trials, and never edited since."""

from collections.abc import Collection
from datetime import UTC, datetime

from analysis.measures.measure import Numbers
from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.registration import Registration
from analysis.reading.run import Run
from analysis.verdicts.claim import Claim
from analysis.verdicts.pairing import Comparison, Contrast, SeedPairs, pair_seeds


def when_registered(
    name: str, claim: Claim, comparison: Comparison, experiment: Experiment, numbers: Numbers
) -> tuple[bool, str]:
    """Returns whether claim and grid were registered in time, and the same in a clause.

    A claim is registered if the launch that first registered it, as it is now, began before the first of
    the compared trials, and its grid compares the same trials. Otherwise it is exploratory.
    """
    compared = _compared(comparison.seeds)
    with_claim = [one for one in experiment.registrations if _hash(one, name) == claim.sha256]
    own = [one for one in with_claim if not compared or compared & set(one.cells)]
    if not own:
        edited = any(name in one.claims for one in experiment.registrations)
        return False, "exploratory: " + ("edited after the launch" if edited else "no launch registered it")
    first = min(own, key=lambda one: one.time_ms)
    when = f"{datetime.fromtimestamp(first.time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    begun = [run.start_time_ms for each in comparison.seeds for run in each.runs if run.start_time_ms]
    if begun and min(begun) < first.time_ms:
        return False, f"exploratory: registered {when}, after the first trial"
    if compared != _compared_by(first, claim, experiment, numbers):
        return False, f"exploratory: the grid was edited after it was registered ({when})"
    return True, f"registered before the first trial ({when}, claim {claim.sha256[:8]})"


def _hash(registration: Registration, name: str) -> object:
    return registration.claims.get(name, {}).get("sha256")


def _compared(seeds: Collection[SeedPairs]) -> set[str]:
    """Hashes of the cells in pairs that have begun."""
    return {run.tag(tags.CELL) for each in seeds for run in each.runs if run.run_id}


def _compared_by(
    registration: Registration, claim: Claim, experiment: Experiment, numbers: Numbers
) -> set[str]:
    """The same for the grid of a registration, whose cells may not be in the grid of today."""
    cells = [
        run for run in (*experiment.cells, *experiment.left_out) if run.tag(tags.CELL) in registration.cells
    ]

    def latency_ms(run: Run) -> float:
        return run.metric("derived_latency_ms")

    by_name = dict.fromkeys((claim.measure, "derived_latency_ms"), latency_ms)
    contrast = Contrast.of(claim)
    return _compared(pair_seeds(experiment, contrast, by_name, claim.num_seeds, cells))
