"""Verdicts: claims as data, and the statistics that decide them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.foundation.errors import ErrorList
from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from analysis.measures.measure import Numbers
    from analysis.reading.experiment import Experiment
    from analysis.verdicts.claim import Claim
    from analysis.verdicts.verdict import Verdict

_PAPER = "analysis.verdicts.paper_claims"

CLAIMS: "Registry[Claim]" = Registry(
    "claim",
    {
        "a": f"{_PAPER}:REDUCES_COLLAPSE",
        "b": f"{_PAPER}:REDUCES_FLUCTUATION",
        "d": f"{_PAPER}:MEETS_TARGETS",
        "d2": f"{_PAPER}:MEETS_TARGETS_OF_RIVAL",
        "e": f"{_PAPER}:IS_AS_ACCURATE",
        "f": f"{_PAPER}:IS_AS_ACCURATE_AS_RANDOM",
        "g": f"{_PAPER}:GP_NAS_IS_AS_ACCURATE_AS_RANDOM",
    },
)
"""Claims by name; (c) is a property of the space, see `describe_redundancy`; (d2) is about a rival of (d)'s.

To add one for a single experiment, write it into `claims:` of the YAML file. To add one for all, register a
`Claim` with `CLAIMS.register("name", "my_module:MY_CLAIM")`.
"""

NONE_OF_A_STUDY = (
    "A study compares no settings; to test claims, launch a grid, such as the one in its best.yaml."
)


def resolve_claims(changes: Mapping[str, Mapping[str, Any] | None], where: str) -> dict[str, "Claim"]:
    """Returns the claims of the paper and of plugins, with the changes of a YAML file.

    Args:
        changes: fields by the name of the claim: all fields of a new claim, or those of a known one that
            differ; None drops a known one.
        where: the YAML file, for errors.

    Raises:
        UserError: a claim is incomplete or impossible.
    """
    from analysis.verdicts.claim import parse_claim

    claims, errors = dict(CLAIMS), ErrorList()
    for name, fields in changes.items():
        if fields is not None:
            known = claims[name].model_dump() if name in claims else {}
            with errors.collecting():
                claims[name] = parse_claim(known | dict(fields), f"{where}: claims.{name}")
        elif claims.pop(name, None) is None:
            errors.add(f"{where}: claims.{name}: null: no such claim; use one of {', '.join(claims)}")
    errors.check()
    return claims


def judge(experiment: "Experiment", numbers: "Numbers") -> list["Verdict"]:
    """Judges the claims that were registered last, or those of the paper if none were; none for a study.

    Raises:
        UserError: a registered claim does not suit this version of tfnas.
    """
    from analysis.verdicts.claim import parse_record
    from analysis.verdicts.verdict import judge_claims

    if experiment.is_study:
        return []
    if not experiment.registrations:
        return judge_claims(dict(CLAIMS), experiment, numbers)
    last = experiment.registered or max(experiment.registrations, key=lambda one: one.last_time_ms)
    where = f"claims that {last.file} registered (run {last.run_id[:8]})"
    claims = {name: parse_record(fields, f"{where}: {name}") for name, fields in last.claims.items()}
    return judge_claims(claims, experiment, numbers)
