"""Whether a claim was registered before the first of its trials, and nothing was changed since."""

from datetime import UTC, datetime

from analysis.measures import MEASURES
from analysis.measures.sign_flips import TEST, is_yes_or_no
from analysis.reading import tags
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.registration import Registration
from analysis.reading.run import NETWORK_FIELDS, SEED
from analysis.verdicts.claim import Claim, parse_record
from analysis.verdicts.pairing import Comparison, Contrast, sides
from nas.foundation.errors import UserError


def when_registered(
    name: str, claim: Claim, comparison: Comparison, experiment: Experiment, *, needs_training: bool
) -> tuple[bool, str]:
    """Returns whether claim and grid were registered in time, and the same in a clause.

    Registered means: the launch that was the last before the first of the compared trials registered this
    claim, with a grid in which it compares the same trials, no later launch changed the claim, and its test
    is still the same. Otherwise it is exploratory.

    Args:
        needs_training: whether trainings decide the claim; then all must be registered under the same terms.
    """
    compared = compared_cells(claim, experiment)
    own = [one for one in experiment.registrations if not compared or compared & set(one.cells)]
    if not own:
        return False, "exploratory: no launch registered these trials"
    begun = [run.start_time_ms for each in comparison.seeds for run in each.runs if run.start_time_ms]
    before = [one for one in own if not begun or one.time_ms <= min(begun)]
    with_claim = [one for one in own if _hash(one, name) == claim.sha256]
    if not with_claim:
        return False, "exploratory: no launch registered it"
    if not any(one in before for one in with_claim):
        return False, f"exploratory: registered {_date(with_claim[0])}, after the first trial"
    in_force = before[-1]
    since = [in_force, *(one for one in own if one.time_ms > in_force.time_ms)]
    if any(_hash(one, name) != claim.sha256 for one in since):
        return False, "exploratory: the claim was edited after the first trial"
    if in_force.claims[name].get("test", 1) != TEST and _has_other_test(claim, comparison):
        return False, "exploratory: the test of yes-or-no measures was corrected after the first trial"
    if compared != _sides_of(in_force, claim, experiment):
        return False, f"exploratory: it compares other trials than were registered {_date(in_force)}"
    if needs_training and (problem := _training_problem(experiment)):
        return False, f"exploratory: {problem}"
    return True, f"registered before the first trial ({_date(in_force)}, claim {claim.sha256[:8]})"


def compared_cells(claim: Claim, experiment: Experiment) -> frozenset[str]:
    """Returns the hashes of the cells that a claim compares, begun or not."""
    others = Contrast.of(claim).others(experiment)
    return sides(experiment.grid_cells, claim, others, experiment.registered)


def most_claims_asked(experiment: Experiment) -> int:
    """Returns the largest number of claims that a launch of any of these trials registered and asked.

    A claim that is dropped after a look was tested all the same.
    """
    present = {run.tags.get(tags.CELL) for run in experiment.grid_cells}
    own = [one for one in experiment.registrations if present & set(one.cells)]
    return max((_count_asked(one, experiment) for one in own), default=0)


def earlier_grids(name: str, experiment: Experiment) -> str:
    """Names earlier grids of other trials that asked a claim of this name; empty if there are none."""
    present = {run.tags.get(tags.CELL) for run in experiment.grid_cells}
    others = [one for one in experiment.registrations if name in one.claims and not present & set(one.cells)]
    num_finished = sum(
        run.is_finished and any(run.tags.get(tags.CELL) in one.cells for one in others)
        for run in experiment.left_out
    )
    if not num_finished:
        return ""
    return (
        f"asked before of {count(len(others), 'other grid')} with {count(num_finished, 'finished trial')}, "
        "which are left out"
    )


def _hash(registration: Registration, name: str) -> str:
    """Hash of a claim as this version reads it; empty if it is not registered, or not readable."""
    claim = _read_claim(registration, name)
    return claim.sha256 if claim else ""


def _read_claim(registration: Registration, name: str) -> Claim | None:
    """A claim of an earlier launch; its measure may be of a plugin that is gone."""
    if name not in registration.claims:
        return None
    try:
        return parse_record(registration.claims[name], name)
    except UserError:
        return None


def _sides_of(registration: Registration, claim: Claim, experiment: Experiment) -> frozenset[str]:
    others = Contrast.of(claim).others(experiment)
    cells = [registration.not_started(cell) for cell in registration.cells]
    return sides(cells, claim, others, registration)


def _count_asked(registration: Registration, experiment: Experiment) -> int:
    claims = [_read_claim(registration, name) for name in registration.claims]
    # A claim that cannot be read may have been asked.
    return sum(claim is None or bool(_sides_of(registration, claim, experiment)) for claim in claims)


def _training_problem(experiment: Experiment) -> str:
    """Why trainings may have been chosen by their results; empty if they may not."""
    if not experiment.training:
        return ""
    registered = experiment.training_registrations
    known = {cell for one in registered for cell in one.cells}
    if any(run.tags.get(tags.CELL) not in known for run in experiment.training):
        return "no launch registered the trainings"
    terms = {
        tuple(
            sorted((name, str(value)) for name, value in cell.items() if name not in (SEED, *NETWORK_FIELDS))
        )
        for one in registered
        for cell in one.cells.values()
    }
    return "trainings were launched under several terms" if len(terms) > 1 else ""


def _has_other_test(claim: Claim, comparison: Comparison) -> bool:
    """Whether the newer version of the test has another p-value."""
    bounds = MEASURES[claim.measure].difference_bounds
    return not claim.null and is_yes_or_no(comparison.difference_N, bounds)


def _date(registration: Registration) -> str:
    return f"{datetime.fromtimestamp(registration.time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
