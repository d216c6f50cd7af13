"""Health of searches: which of the checks they pass, and what to change where they fail."""

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.reading.run import Run
from nas.latency.elasticity import MAX_LATENCY_ERROR_PERCENT
from nas.search.health import (
    MAX_FINAL_ENTROPY,
    MAX_FINAL_TEMPERATURE,
    MAX_SHARE_AT_FLOOR,
    MIN_ACCURACY_GAIN,
    MIN_WARMUP_STEPS,
    HealthCheck,
)

CHECKS = {
    "alphas": f"alpha ends with at most {MAX_FINAL_ENTROPY:.0%} of a uniform distribution's entropy, on "
    "average over the layers that are kept or may be skipped",
    "temperature": f"the temperature of the last epoch is at most {MAX_FINAL_TEMPERATURE:g}",
    "warmup": f"each candidate was trained in at least {MIN_WARMUP_STEPS} warm-up steps, on average",
    "latency": f"the derived network is within {MAX_LATENCY_ERROR_PERCENT:g} % of its target",
    "widths": "its widths are neither all at their lower nor all at their upper bound",
    "depth": "it has more layers than the shallowest network of the space, and so it was in at least "
    f"{1 - MAX_SHARE_AT_FLOOR:.0%} of the joint epochs",
    "accuracy": "held-out accuracy exceeds that of the initial operators, and has come at least "
    f"{MIN_ACCURACY_GAIN:.0%} of the way from chance to 1",
}
"""What a search shows that passes a check, by the name of the check."""


@dataclass(frozen=True)
class FailedCheck:
    """A check that searches fail for the same reason.

    Attributes:
        name: of the check.
        finding: of the first of the searches, as an example.
        remedy: the fields to change, the same for all.
        runs: the searches.
    """

    name: str
    finding: str
    remedy: str
    runs: tuple[Run, ...]


def names_of_checks(runs: Iterable[Run]) -> list[str]:
    """Returns the names of the checks that any run has, in the order of `CHECKS`."""
    found = dict.fromkeys(check.name for run in runs for check in run.health or ())
    return [name for name in CHECKS if name in found] + [name for name in found if name not in CHECKS]


def find_check(run: Run, name: str) -> HealthCheck | None:
    """Returns a check of a run; None if the run has none of that name."""
    return next((check for check in run.health or () if check.name == name), None)


def failed_checks(runs: Iterable[Run]) -> list[FailedCheck]:
    """Returns the distinct failed checks, in the order of `CHECKS`: a remedy for each."""
    runs = tuple(runs)
    failures: dict[tuple[str, str], list[tuple[Run, HealthCheck]]] = {}
    for name in names_of_checks(runs):
        for run in runs:
            check = find_check(run, name)
            if check is not None and not check.is_healthy:
                failures.setdefault((name, check.remedy), []).append((run, check))
    return [
        FailedCheck(name, found[0][1].finding, remedy, tuple(run for run, _ in found))
        for (name, remedy), found in failures.items()
    ]
