"""A derived network as a record that one can read and diff."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from numpy.random import Generator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas.foundation.errors import UserError
from nas.foundation.files import write_atomically
from nas.foundation.validation import first_error, read_json
from nas.space.macro_space import LayerSpec, Space, get_space
from nas.space.operators import CandidateOp


class LayerChoice(BaseModel):
    """What was chosen for a kept layer: the candidate operator and its mid channels."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    op: str
    mid_channels: Annotated[int, Field(ge=1)]


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not shown; remove them")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]
StageChoices = Annotated[tuple[LayerChoice, ...], Field(strict=False)]


class Architecture(BaseModel):
    """A derived network: the space, and for each stage the layers that are kept, in order.

    Attributes:
        space: name of the macro space.
        stages: one tuple of layer choices per stage; its length is the stage's depth.
        name: a name for people, or None.

    Raises:
        ValueError: an operator, a depth or a width that the space does not have.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    space: str
    stages: Annotated[tuple[StageChoices, ...], Field(strict=False)]
    name: Name | None = None

    @model_validator(mode="after")
    def _fits_its_space(self) -> "Architecture":
        space = get_space(self.space)
        if len(self.stages) != len(space.stages):
            raise ValueError(f"stages: {len(self.stages)}, but space '{space.name}' has {len(space.stages)}")
        for stage, choices in enumerate(self.stages):
            low, high = space.min_depth(stage), space.stages[stage].num_layers
            if not low <= len(choices) <= high:
                raise ValueError(f"stages[{stage}]: {len(choices)} layers; must be {low} to {high}")
            for layer, choice in zip(space.stage_layers(stage), choices, strict=False):
                _check_choice(space, layer, choice)
        return self

    @property
    def depth(self) -> int:
        """Number of searchable layers that are kept."""
        return sum(len(choices) for choices in self.stages)

    @property
    def layers(self) -> tuple[tuple[LayerSpec, CandidateOp, int], ...]:
        """Each kept layer: its place in the space, its operator, its mid channels."""
        space = get_space(self.space)
        return tuple(
            (layer, space.op(choice.op), choice.mid_channels)
            for stage, choices in enumerate(self.stages)
            for layer, choice in zip(space.stage_layers(stage), choices, strict=False)
        )

    def with_widths(self, mid_channels: Sequence[int]) -> "Architecture":
        """The same operators with other mid channels, one per kept layer."""
        widths = iter(mid_channels)
        stages = tuple(
            tuple(LayerChoice(op=choice.op, mid_channels=int(next(widths))) for choice in choices)
            for choices in self.stages
        )
        return Architecture(space=self.space, stages=stages, name=self.name)

    def save(self, path: str | Path) -> None:
        """Writes the record as indented JSON, atomically."""
        text = json.dumps(self.model_dump(exclude_none=True), indent=1) + "\n"
        write_atomically(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path) -> "Architecture":
        """Reads a JSON record.

        Raises:
            UserError: the file is missing, is not JSON, or does not fit its space.
        """
        try:
            return cls.model_validate(read_json(path, "an architecture"))
        except ValidationError as error:
            raise UserError(f"{path}: {first_error(error)}") from None


def _check_choice(space: Space, layer: LayerSpec, choice: LayerChoice) -> None:
    place = f"stages[{layer.stage}][{layer.index}]"
    try:
        op = space.op(choice.op)
    except ValueError as error:
        raise ValueError(f"{place}.op: {error}") from None
    low, high = op.width_interval(layer.in_channels)
    if not low <= choice.mid_channels <= high:
        raise ValueError(
            f"{place}.mid_channels: {choice.mid_channels}; '{choice.op}' takes {low} to {high} here"
        )


def draw_architecture(space: Space, rng: Generator) -> Architecture:
    """A random network: depths, operators and widths uniform over what the space allows."""
    stages = []
    for stage, spec in enumerate(space.stages):
        choices = []
        for layer in space.stage_layers(stage)[: rng.integers(space.min_depth(stage), spec.num_layers + 1)]:
            op = space.ops[rng.integers(len(space.ops))]
            low, high = op.width_interval(layer.in_channels)
            choices.append(LayerChoice(op=op.name, mid_channels=int(rng.integers(low, high + 1))))
        stages.append(tuple(choices))
    return Architecture(space=space.name, stages=tuple(stages))
