"""Claim: what is claimed, by which measure, between which settings, and how large an effect matters.

A claim is data: the claims of the paper are records in `paper_claims.py`, and `claims:` in a YAML file adds
further ones or changes some.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.measures import MEASURES
from analysis.measures.sign_flips import MIN_VALUES, TEST, Direction
from analysis.reading.values import Value, order_fields, show_value
from nas.foundation.errors import UserError
from nas.foundation.validation import describe_error

Setting = dict[str, Value]


class Claim(BaseModel):
    """One claim, fixed before its trials run.

    Trials are paired if they agree in the seed and in everything else except the contrast; a seed counts
    once, with the mean of its pairs.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    statement: Annotated[str, Field(min_length=1)]
    """The claim in a sentence."""

    measure: str
    """Name of the measure that decides."""

    baseline: Annotated[Setting, Field(min_length=1)]
    """Config fields and their values in baseline trials."""

    treated: Annotated[Setting, Field(min_length=1)]
    """The same fields and their values in the trials that are claimed to differ."""

    within: Setting = Field(default_factory=dict)
    """Other fields and the value that both must have."""

    direction: Direction
    """Whether treated trials are claimed to have less or more of the measure."""

    smallest_effect: Annotated[float, Field(allow_inf_nan=False)]
    """Smallest difference that matters, in the unit of the measure, positive in the claimed direction.

    Negative: the claim is that treated trials are not worse by this much (non-inferiority).
    """

    num_seeds: Annotated[int, Field(ge=MIN_VALUES)] = 12
    """Number of seeds that the verdict is based on; the first ones of the grid are used."""

    match: Literal["setting", "latency"] = "setting"
    """How trials are paired.

    `setting`: both have the same target. `latency`: a baseline trial is paired with the slowest treated
    trial that is as fast, whatever their targets; for baselines that miss their targets.
    """

    second_measure: str | None = None
    """Name of another definition of what is measured, smaller or larger in the same direction."""

    beside: list[str] = Field(default_factory=list)
    """Names of measures that the report shows beside the verdict."""

    note: str = ""
    """What a reader has to know to interpret the numbers."""

    @field_validator("measure", "second_measure")
    @classmethod
    def _is_measure(cls, name: str | None) -> str | None:
        return name if name is None else MEASURES.check(name)

    @field_validator("beside")
    @classmethod
    def _are_measures(cls, names: list[str]) -> list[str]:
        return [MEASURES.check(name) for name in names]

    @field_validator("smallest_effect")
    @classmethod
    def _is_an_effect(cls, effect: float) -> float:
        if not effect:
            raise ValueError("must not be 0; name the smallest difference that you would act on")
        return effect

    @model_validator(mode="after")
    def _is_a_contrast(self) -> Self:
        if set(self.baseline) != set(self.treated):
            odd = sorted(set(self.baseline) ^ set(self.treated))[0]
            raise ValueError(
                f"baseline and treated: '{odd}' is in one of them only; give both the same fields"
            )
        if self.baseline == self.treated:
            raise ValueError("baseline and treated: are the same; let them differ in a field")
        if both := set(self.within) & set(self.baseline):
            raise ValueError(f"within: '{sorted(both)[0]}' is part of the contrast; remove it")
        return self

    @property
    def null(self) -> float:
        """The difference, in the claimed direction, that the test has to exclude."""
        return min(0.0, self.smallest_effect)

    @property
    def sign(self) -> float:
        """Factor that makes differences positive in the claimed direction."""
        return 1.0 if self.direction == "greater" else -1.0

    @property
    def contrast(self) -> str:
        """Treated minus baseline, in words."""
        return show_contrast(self.treated, self.baseline)

    @property
    def sha256(self) -> str:
        """Identifies the claim: any edit changes it, except one of what is only shown beside the verdict."""
        content = json.dumps(self.model_dump(mode="json", exclude={"beside", "note"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Returns the claim as JSON, with its hash and the version of the test."""
        return self.model_dump(mode="json") | {"sha256": self.sha256, "test": TEST}


def show_setting(setting: Mapping[str, Value]) -> str:
    """Writes a setting for people: `bi_random, sink`."""
    return ", ".join(show_value(name, setting[name]) for name in order_fields(setting))


def show_contrast(treated: Mapping[str, Value], baseline: Mapping[str, Value]) -> str:
    """Writes a difference for people: `sink − skip`."""
    sides = (show_setting(treated), show_setting(baseline))
    return " − ".join(f"({side})" if " " in side else side for side in sides)


def parse_claim(fields: Mapping[str, Any], where: str) -> Claim:
    """Checks a claim.

    Args:
        where: what the error names: file and claim.

    Raises:
        UserError: a field is unknown, missing or impossible.
    """
    try:
        return Claim(**fields)
    except ValidationError as error:
        problems = [f"{where}.{describe_error(details)}" for details in error.errors()]
        raise UserError(*problems) from None


def parse_record(record: Mapping[str, Any], where: str) -> Claim:
    """Reads a claim from its record, see `parse_claim`."""
    return parse_claim({name: record[name] for name in record.keys() - {"sha256", "test"}}, where)
