"""TemplateFile: a commented YAML file of searches, and one of trainings of the networks that they find."""

import itertools
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from experiments.console import format_count, format_duration
from experiments.templates.question import Question
from experiments.templates.small_protocol import SmallProtocol


@dataclass(frozen=True)
class TemplateFile:
    """A new file: what it asks, how, and within which budget.

    Attributes:
        path: of the YAML file; its name without suffix names the experiment.
        device: `cpu` or `cuda`.
        budget_s: seconds to spend.
        num_parallel: searches that run at a time.
        schema: path of the schema for editors.
        min_seeds: fewest seeds that a claim can be decided with.
        max_seeds: seeds that the claims of the paper are decided with.
    """

    path: Path
    question: Question
    protocol: SmallProtocol
    device: str
    budget_s: float
    num_parallel: int
    schema: Path
    min_seeds: int
    max_seeds: int

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.path.stem

    @property
    def training_path(self) -> Path:
        """The file of trainings beside it."""
        return self.path.with_name(f"{self.path.stem}_train{self.path.suffix}")

    @property
    def files(self) -> dict[Path, str]:
        """The text of each file to write."""
        return {self.path: self._searches(), self.training_path: self._trainings()}

    @property
    def seed_s(self) -> float:
        """About how long all searches (and trainings) of one seed take."""
        names = list(self.question.factors)
        cells = [dict(zip(names, values, strict=True)) for values in self._combinations()]
        searches_s = sum(self.protocol.search_s(self.question.fixed | cell, self.device) for cell in cells)
        trainings_s = len(cells) * self.protocol.training_s(self.device)
        return (searches_s + trainings_s * self.question.is_about_accuracy) / self.num_parallel

    @property
    def num_seeds(self) -> int:
        """As many seeds as the budget allows, at least one and at most those of a verdict.

        Epochs are never cut: a shorter search chooses nothing (docs/protocol.md).
        """
        return min(max(int(self.budget_s / self.seed_s), 1), self.max_seeds)

    @property
    def cost_s(self) -> float:
        """About how long all of it takes."""
        return self.num_seeds * self.seed_s

    def _combinations(self) -> list[tuple[Any, ...]]:
        return list(itertools.product(*self.question.factors.values()))

    @property
    def _out(self) -> str:
        return quote(f"results/{self.experiment}")

    def _searches(self) -> str:
        train = f" --then-train {quote(str(self.training_path))}" if self.question.is_about_accuracy else ""
        base = [
            *self.protocol.search_fields(),
            *((key, value, "") for key, value in self.question.fixed.items()),
        ]
        if "target_latency_ms" not in self.question.factors:
            target = ("target_latency_ms", self.protocol.target, "of the interval that the table reaches")
            base.insert(1, target)
        if self.device == "cuda":
            base.append(("device", "cuda", ""))
        return "\n".join(
            [
                f"# yaml-language-server: $schema={self.schema}",
                *_comment(f"Question: {self.question.text}"),
                "#",
                f"#   tfnas launch {quote(str(self.path))}{train} --out {self._out}",
                f"#   tfnas report {quote(self.experiment)} --out {self._out}",
                *([] if train else [f"#   tfnas launch {quote(str(self.training_path))} --out {self._out}"]),
                "#",
                *_comment(f"Claims: {self._describe_claims()}"),
                *_comment(f"Cost: {self._describe_cost()}"),
                *_comment(f"Expected: {self.question.expected}"),
                "# Seen: not run yet.",
                f"experiment: {_value(self.experiment)}",
                "",
                "base:",
                *_fields(base),
                *self._resources(),
                *self._claims(),
                "",
                "grid:",
                *_fields((key, values, "") for key, values in self.question.factors.items()),
                *_fields(
                    [("seed", list(range(self.num_seeds)), "a seed is a repetition; more may be added later")]
                ),
                "",
            ]
        )

    def _trainings(self) -> str:
        number = self.num_seeds * len(self._combinations())
        cost_s = number * self.protocol.training_s(self.device) / self.num_parallel
        return "\n".join(
            [
                f"# yaml-language-server: $schema={self.schema}",
                f"# Question: what are the networks of {self.path.name} worth once trained from scratch?",
                "#",
                f"#   tfnas launch {quote(str(self.training_path))} --out {self._out}",
                f"#   tfnas export run:NAME --out {self._out}   # NAME of a training in the table",
                f"#   tfnas predict run:NAME --out {self._out} IMAGE",
                "#",
                *_comment(
                    f"It follows the searches of {self.path.name}. To train a few of their networks, replace "
                    f"`experiment:{self.experiment}` by `run:NAME` of each search."
                ),
                *_comment(f"Cost: {format_count(number, 'training')}, about {format_duration(cost_s)}."),
                f"experiment: {_value(self.experiment)}",
                "",
                "architectures:",
                f"  - {_value(f'experiment:{self.experiment}')}",
                "",
                "base:",
                *_fields([*self.protocol.training_fields()]),
                *self._resources(),
                "",
                "grid:",
                "  seed: [0]",
                "",
            ]
        )

    def _describe_claims(self) -> str:
        names = " and ".join(f"({name})" for name in self.question.claims)
        if not names:
            return "none; it describes."
        seeds = format_count(self.num_seeds, "seed")
        if self.num_seeds == self.max_seeds:
            return f"{names}, with {seeds}, as registered."
        if self.num_seeds >= self.min_seeds:
            return f"{names}, decided with the {seeds} that the budget allows instead of {self.max_seeds}."
        return (
            f"{names}, undecided with {seeds}: it takes {self.max_seeds}, or `num_seeds` of a claim, at "
            f"least {self.min_seeds}. Seeds may be added to the grid later."
        )

    def _claims(self) -> list[str]:
        if not self.question.claims or not self.min_seeds <= self.num_seeds < self.max_seeds:
            return []
        changes = [f"  {name}: {{num_seeds: {self.num_seeds}}}" for name in self.question.claims]
        return ["", "claims:", *changes]

    def _describe_cost(self) -> str:
        number = self.num_seeds * len(self._combinations())
        what = format_count(number, "search", "searches")
        if self.question.is_about_accuracy:
            what += f" and {format_count(number, 'training')}"
        on = "a GPU (a guess)" if self.device == "cuda" else format_count(self.num_parallel, "core")
        seeds, budget = format_count(self.num_seeds, "seed"), format_duration(self.budget_s)
        return (
            f"{what}, about {format_duration(self.cost_s)} on {on}; {seeds} for a budget of {budget}. "
            "`--dry-run --measure` estimates it for your machine."
        )

    def _resources(self) -> list[str]:
        if self.device != "cuda":
            return []
        return ["", "resources:", "  cpus_per_trial: 4   # they decode images", "  gpus_per_trial: 1"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _fields(fields: Iterable[tuple[str, Any, str]]) -> list[str]:
    return [
        f"  {name}: {_value(value)}{f'   # {comment}' if comment else ''}" for name, value, comment in fields
    ]


def _value(value: Any) -> str:
    """A value as YAML, in one line."""
    if isinstance(value, str):
        text = (
            yaml.safe_dump(value, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")
        )
        return text if "\n" not in text else json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return yaml.safe_dump(value).split("\n")[0]
