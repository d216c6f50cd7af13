"""The oracle of a small space: every network trained from scratch, with its latency.

Shapes: N networks, R trainings, L searchable layers.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.foundation.errors import UserError
from nas.foundation.validation import first_error, read_json
from nas.space.architecture import Architecture
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import get_space

Accuracy = Annotated[float, Field(ge=0, le=1)]


class NetworkRecord(BaseModel):
    """One network: its latency by the table, and its test accuracy by the seed of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    test_accuracy: dict[int, Accuracy]


class OracleFile(BaseModel):
    """The content of the file.

    Attributes:
        dataset: a data set that comes with tfnas, whose images never change.
        provenance: protocol, images, lookup table, versions and machine of the trainings, in words.
        networks: by `operator_code`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str
    dataset: str
    provenance: dict[str, str]
    networks: dict[str, NetworkRecord]


@dataclass(frozen=True, eq=False)
class SpaceOracle:
    """What every network of a space is worth, at its initial widths, on the images of a data set.

    Attributes:
        codes: of the networks, see `operator_code`.
        accuracies_NR: test accuracy of each training, a fraction of 1.
        latencies_ms_N: by the lookup table that comes with the oracle.
    """

    space: str
    dataset: str
    codes: tuple[str, ...]
    accuracies_NR: NDArray[np.float64]
    latencies_ms_N: NDArray[np.float64]
    provenance: dict[str, str]

    @property
    def accuracies_N(self) -> NDArray[np.float64]:
        """Mean over the trainings: what counts as a network's truth."""
        return np.asarray(self.accuracies_NR.mean(axis=1))

    def regrets_N(
        self, target_ms: float, latencies_ms_N: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """How much less accurate each network is than the best one that meets the target.

        A network that misses the target has all as rivals that are no slower than itself, so that nothing is
        won by missing it, nor by being faster than asked.

        Args:
            latencies_ms_N: by another lookup table, that of the search; None for the oracle's own.
        """
        latencies_ms_N = self.latencies_ms_N if latencies_ms_N is None else latencies_ms_N
        is_rival_NN = latencies_ms_N[None, :] <= np.maximum(latencies_ms_N, target_ms)[:, None]
        best_N = np.where(is_rival_NN, self.accuracies_N[None, :], -np.inf).max(axis=1)
        return np.asarray(best_N - self.accuracies_N)

    def index_of(self, architecture: Architecture) -> int | None:
        """The place of a network; None if it has other than its initial widths."""
        for layer, op, width in architecture.layers:
            if width != op.initial_width(layer.in_channels):
                return None
        return self.codes.index(operator_code(architecture, get_space(self.space)))


@cache
def load_oracle(space_name: str) -> SpaceOracle | None:
    """The oracle that comes with a space; None if it has none.

    Raises:
        UserError: the file is damaged.
    """
    resource = files("nas.oracle") / f"{space_name}.json"
    if not resource.is_file():
        return None
    with as_file(resource) as path:
        return read_oracle(path)


def read_oracle(path: Path) -> SpaceOracle:
    """Reads an oracle; trainings of seeds that not all networks have are left out.

    Raises:
        UserError: it cannot be read, or lacks networks of its space, or has no seed of all networks.
    """
    try:
        content = OracleFile.model_validate(read_json(path, "an oracle"))
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}") from None
    space = get_space(content.space)
    codes = tuple(operator_code(architecture, space) for architecture in all_architectures(space))
    if set(codes) != set(content.networks):
        raise UserError(f"{path}: networks: not those of space '{space.name}'; rebuild it")
    records = [content.networks[code] for code in codes]
    seeds = set.intersection(*(set(record.test_accuracy) for record in records))
    if not seeds:
        raise UserError(f"{path}: networks: no seed was trained for all of them; train the others")
    return SpaceOracle(
        space.name,
        content.dataset,
        codes,
        np.array([[record.test_accuracy[seed] for seed in sorted(seeds)] for record in records]),
        np.array([record.latency_ms for record in records]),
        content.provenance,
    )
