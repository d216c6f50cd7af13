"""What figures show of an experiment, in which order and by which names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from analysis.reading.run import SEED, Run
from analysis.reading.values import Value, show_value
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment


@dataclass(frozen=True)
class Shown:
    """What figures show of an experiment.

    Attributes:
        seeds: none for all.
        layers: those of the collapse map, as `stage.layer`; none for all.
        order: values of factors as figures write them (`single`, `T = 4 ms`), the first ones first.
        labels: other texts for such values.
    """

    seeds: Sequence[int] = ()
    layers: Sequence[str] = ()
    order: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def name(self, factor: str, value: Value) -> str:
        """Writes the value of a factor for people."""
        text = show_value(factor, value)
        return self.labels.get(text, text)

    def select(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        """The runs of the seeds that are shown."""
        return tuple(run for run in runs if not self.seeds or run.seed in self.seeds)

    def sort(self, runs: Iterable[Run], factors: Sequence[str]) -> tuple[Run, ...]:
        """Sorts runs by the order of their values; those that it does not name keep their places behind."""
        rank = {text: place for place, text in enumerate(self.order)}

        def places(run: Run) -> list[int]:
            texts = (show_value(factor, run.config.get(factor)) for factor in factors)
            return [rank.get(text, len(rank)) for text in texts]

        return tuple(sorted(runs, key=places))

    def check(self, experiment: "Experiment") -> None:
        """Checks that the experiment has everything that is named.

        Raises:
            UserError: names the option, what is unknown, and what is known.
        """
        cells, factors = experiment.cells, experiment.factors
        values = {show_value(factor, run.config.get(factor)) for factor in factors for run in cells}
        layers = {layer.label for run in experiment.searched for layer in run.space.layers}
        seeds = {run.config.get(SEED) for run in cells}
        for option, wanted, known in (
            ("--seeds", self.seeds, seeds),
            ("--layers", self.layers, layers),
            ("--order", self.order, values),
            ("--label", self.labels, values),
        ):
            if unknown := [one for one in wanted if one not in known]:
                listed = ", ".join(sorted(map(str, known))) or "none"
                raise UserError(f"{option}: {unknown[0]}: not in {experiment.name}, which has {listed}")
        written = {value: self.labels.get(value, value) for value in values}
        for value, label in self.labels.items():
            if same := [other for other in written if written[other] == label and other != value]:
                raise UserError(
                    f"--label: {value}={label}: {same[0]} is written so, too; choose another text"
                )
