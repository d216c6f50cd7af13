"""A search that was repeated from scratch, compared with what a bundle holds of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.reading.run import Run
from nas.search.records import Trajectory
from nas.space.architecture import Architecture

NOT_REPEATABLE = frozenset({"epoch_seconds", "peak_gpu_memory_bytes"})
"""Metrics of the machine, not of the search."""


@dataclass(frozen=True)
class Repetition:
    """How a repeated search differs from the recorded one.

    Attributes:
        num_compared: numbers.
        differing: names of the arrays and metrics that are not equal to the last bit.
        largest_deviation: of a probability of an operator or a depth, over all epochs; NaN where no two can
            be compared.
        networks: derived network as recorded and as repeated, where they differ.
        is_same_machine: whether device and libraries are those of then, so that all bits must be equal.
    """

    run: Run
    num_compared: int
    differing: tuple[str, ...]
    largest_deviation: float
    networks: tuple[str, str] | None
    is_same_machine: bool

    @property
    def agrees(self) -> bool:
        """Equal bits on the same machine and libraries; on others, the same derived network."""
        return not self.differing if self.is_same_machine else self.networks is None

    def __str__(self) -> str:
        where = "the same" if self.is_same_machine else "another"
        terms = f"{self.num_compared} numbers, {where} device and libraries"
        if not self.differing:
            return f"{self.run.name} ({self.run.short_id}): equal bit for bit ({terms})"
        network = "the same derived network"
        if self.networks:
            network = f"derived network: stored {self.networks[0]}, repeated {self.networks[1]}"
        return (
            f"{self.run.name} ({self.run.short_id}): {network}; largest deviation of a probability "
            f"{self.largest_deviation:.2g}; {', '.join(self.differing)} differ ({terms})"
        )


def compare_repetition(run: Run, artifacts: Path, *, is_same_machine: bool) -> Repetition:
    """Compares a search of a bundle with its repetition.

    Args:
        run: with its files.
        artifacts: the folder with the files of the repetition.
    """
    assert run.trajectory is not None
    assert run.architecture is not None
    repeated = Trajectory.load(artifacts / "trajectory.npz")
    architecture = Architecture.load(artifacts / "architecture.json")
    pairs = list(_pairs(run, repeated, artifacts))
    differing = [name for name, one, other in pairs if not np.array_equal(one, other, equal_nan=True)]
    is_same_network = architecture.stages == run.architecture.stages
    return Repetition(
        run,
        sum(np.size(one) for _, one, _ in pairs),
        (*differing, *(() if is_same_network else ("architecture",))),
        _deviation(run.trajectory, repeated),
        None if is_same_network else (_show(run.architecture), _show(architecture)),
        is_same_machine,
    )


def _pairs(run: Run, repeated: Trajectory, artifacts: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Arrays and metrics, stored and repeated."""
    for name, array in vars(run.trajectory).items():
        if isinstance(array, np.ndarray):
            other = getattr(repeated, name)
            yield name, array, np.empty(0) if other is None else other
    tables = [(run.epochs, "metrics.csv", "epoch"), (run.evaluations, "evaluations.csv", "evaluation")]
    for stored, file, index in tables:
        if stored is None:
            continue
        table = pd.read_csv(artifacts / file, index_col=index)
        for metric in map(str, stored.select_dtypes("number")):
            if metric not in NOT_REPEATABLE:
                column = table[metric].to_numpy(float) if metric in table else np.empty(0)
                yield metric, stored[metric].to_numpy(float), column


def _deviation(one: Trajectory, other: Trajectory) -> float:
    """The largest difference of two probabilities of an operator or a depth."""
    found = [
        np.abs(np.exp(a) - np.exp(b)).max(initial=0.0)
        for name in ("alpha_ELO", "beta_ESD")
        if (a := getattr(one, name)) is not None
        and (b := getattr(other, name)) is not None
        and a.shape == b.shape
    ]
    return float(max(found, default=np.nan))


def _show(architecture: Architecture) -> str:
    return " | ".join(
        " ".join(f"{choice.op}:{choice.mid_channels}" for choice in stage) for stage in architecture.stages
    )
