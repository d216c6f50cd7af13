"""A table of networks with known accuracies, against which searches are judged.

Shapes: N distinct networks, F features of a network's code, R trainings, E encodings, L layers.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TabularOracle:
    """Every network of a space, each trained on its own, several times.

    Attributes:
        name: of the table, for people.
        names_N: of the networks.
        codes_NF: features of the networks, of about 0 to 1, from which a predictor learns.
        accuracies_NR: accuracy of each training, as a fraction of 1.
        choices_EL: each encoding as the index of the operator in each layer, from 0. Several encodings may
            describe one network.
        network_E: index of the network that each encoding describes.
    """

    name: str
    names_N: tuple[str, ...]
    codes_NF: NDArray[np.float64]
    accuracies_NR: NDArray[np.float64]
    choices_EL: NDArray[np.int64]
    network_E: NDArray[np.int64]

    def __post_init__(self) -> None:
        num = len(self.names_N)
        assert len(set(self.names_N)) == len(self.codes_NF) == len(self.accuracies_NR) == num
        assert ((self.accuracies_NR >= 0) & (self.accuracies_NR <= 1)).all()
        assert len(self.choices_EL) == len(self.network_E)
        assert np.array_equal(np.unique(self.network_E), np.arange(num))

    @cached_property
    def mean_accuracies_N(self) -> NDArray[np.float64]:
        """Mean accuracy of each network over its trainings: what counts as its truth."""
        return np.asarray(self.accuracies_NR.mean(axis=1))

    @cached_property
    def regrets_N(self) -> NDArray[np.float64]:
        """How much less accurate each network is than the best one of the table."""
        return np.asarray(self.mean_accuracies_N.max() - self.mean_accuracies_N)
