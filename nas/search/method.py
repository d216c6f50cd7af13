"""What a search method is: from the state after some epochs to the result of the next one.

Shapes: see `nas.search.records`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from nas.config import SearchConfig
from nas.data.image_lists import Listing
from nas.data.search_data import SearchData, load_search_data
from nas.foundation.device import resolve_device
from nas.latency.table import LatencyTable
from nas.search.records import EpochRecord, Evaluation, Phase
from nas.space.architecture import Architecture
from nas.space.macro_space import Space, get_space


@dataclass(frozen=True)
class SearchTask:
    """What every method is given."""

    config: SearchConfig
    table: LatencyTable
    space: Space
    device: torch.device
    data: SearchData

    @classmethod
    def of(cls, config: SearchConfig, table: LatencyTable, listing: Listing | None = None) -> "SearchTask":
        """Loads the images and finds the device.

        Args:
            listing: the image files; None to list them now.

        Raises:
            UserError: images or device are missing, or there are too few images.
        """
        space = get_space(config.space)
        device = resolve_device(config.device)
        return cls(config, table, space, device, load_search_data(config, space.resolution, listing))


@dataclass(frozen=True)
class EpochResult:
    """What a method reports of an epoch.

    Attributes:
        phase: `warmup`, `joint` or `evaluation`.
        metrics: `val_accuracy` and whatever else the method measures, accuracies as fractions of 1. Latency,
            depth and time are added to them.
        architecture: the network that would be derived now.
        arrays: this epoch's row of those arrays of `Trajectory` that the method has.
        kernels: what computed the mixed blocks (`nas.supernet.kernels`); None where a method has none.
        evaluations: the networks that were evaluated in this epoch, if any.
    """

    phase: Phase
    metrics: dict[str, float]
    architecture: Architecture
    arrays: dict[str, NDArray[Any]]
    kernels: str | None = None
    evaluations: tuple[Evaluation, ...] = ()


class SearchMethod(ABC):
    """A search method, and its state between two epochs.

    `run_epoch` may depend on the task, the epoch and what `state_dict` holds, and on nothing else:
    so a search that was interrupted ends like one that was not, to the last bit.

    Args:
        task: config, lookup table, space, device and images.
    """

    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    """Config fields without an effect under this method; setting them gives a warning."""

    def __init__(self, task: SearchTask) -> None:
        self.task = task

    @staticmethod
    def check(config: SearchConfig, table: LatencyTable) -> None:
        """Checks, before images are loaded, what only this method asks of config and table.

        Raises:
            UserError: they do not fit.
        """
        return

    @staticmethod
    def phases(config: SearchConfig) -> list[Phase]:
        """The phase of each epoch of a search; by default warm-up, then joint epochs."""
        warmup: list[Phase] = ["warmup"]
        joint: list[Phase] = ["joint"]
        return warmup * config.num_warmup_epochs + joint * config.num_joint_epochs

    @abstractmethod
    def run_epoch(self, epoch: int) -> EpochResult:
        """Runs an epoch; they count from 1.

        Raises:
            DivergedError: a loss or a parameter is no longer finite.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors, numbers, strings and containers of them."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""


class SharingMethod(SearchMethod):
    """A method whose first epochs are the same for several searches, which can then share them."""

    @property
    @abstractmethod
    def num_shared_epochs(self) -> int:
        """How many first epochs are the same for searches with an equal `shared_identity`."""

    @staticmethod
    @abstractmethod
    def shared_hash(config: SearchConfig, data_fingerprint: str, device_type: str) -> str:
        """A hash of all that determines the shared epochs.

        Args:
            device_type: where they are computed: `cpu` or `cuda`.
        """

    @property
    def shared_identity(self) -> str:
        """The same, for the search of the task."""
        return self.shared_hash(self.task.config, self.task.data.fingerprint, self.task.device.type)

    @abstractmethod
    def shared_state_dict(self, records: Sequence[EpochRecord]) -> dict[str, Any]:
        """What the shared epochs changed and measured, without anything specific to this search.

        Args:
            records: of the shared epochs done so far.
        """

    @abstractmethod
    def load_shared_state_dict(self, state: dict[str, Any], num_done: int) -> list[EpochResult]:
        """Restores a state of `shared_state_dict`.

        Args:
            num_done: how many of its epochs are done here.

        Returns:
            The results of the epochs after those.
        """
