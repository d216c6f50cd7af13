"""What methods that train a supernet have in common: weights, kernels, random streams and checkpoints.

Shapes: L searchable layers, O candidate operators.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from nas.foundation.errors import DivergedError
from nas.search.method import EpochResult, SearchTask, SharingMethod
from nas.search.records import GPU_METRIC_NAMES, STEP_METRIC_NAMES, EpochRecord
from nas.supernet.kernels import Kernels, block_of, choose_kernels
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet

_STREAMS = ("weight_batches", "arch_batches", "paths")

_SHARED_METRICS = (
    *("train_loss", "train_accuracy", "val_accuracy"),
    *("weight_lr", "epoch_seconds", "num_skipped_images", *STEP_METRIC_NAMES, *GPU_METRIC_NAMES),
)
"""What shared epochs measure; the other metrics depend on the target, the table or the temperature."""


class SupernetMethod(SharingMethod):
    """A method that trains the weights of a supernet.

    No epoch draws from the global generators, and the learning rate follows from the number of the
    epoch: neither is kept.

    Attributes:
        supernet: weights, alpha, beta and widths.
    """

    def __init__(self, task: SearchTask) -> None:
        super().__init__(task)
        config = task.config
        self.supernet = Supernet(task.space, task.data.num_classes, config.depth, seed=config.seed)
        self.supernet.to(task.device)
        if task.device.type == "cuda":
            # Otherwise each convolution of features that are channels last would bring its weights into line.
            self.supernet.to(memory_format=torch.channels_last)
        self._kernels: Kernels | None = None
        self._begun_with: str | None = None
        # Draws of batches and of paths are apart, so that cells of a grid see the same batches.
        self._generators = {
            name: Generator().manual_seed(config.seed * len(_STREAMS) + index)
            for index, name in enumerate(_STREAMS)
        }
        self._steps = SearchSteps(self.supernet, config, task.table)

    def _use_kernels(self) -> None:
        """Chooses what computes the mixed blocks, once; late, since a checkpoint may fix them."""
        if self._kernels is None:
            config = self.task.config
            self._kernels = choose_kernels(
                config.kernels,
                self.task.device,
                mixed_precision=config.mixed_precision,
                begun_with=self._begun_with,
            )
            self.supernet.set_blocks(partial(block_of, self._kernels, self.task.device))

    @torch.no_grad()
    def _evaluate(self, forward: Callable[[Tensor], Tensor]) -> float:
        """Held-out accuracy of what gives logits of images."""
        num_correct = torch.zeros((), device=self.task.device)
        num_images = 0
        for images_BCHW, labels_B in self.task.data.val_batches():
            with self._steps.autocast():
                logits_BK = forward(images_BCHW)
            num_correct += (logits_BK.argmax(-1) == labels_B).sum()
            num_images += len(labels_B)
        return float(num_correct) / num_images

    def _check_finite(self, epoch: int, values: Mapping[str, float]) -> None:
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise DivergedError(
                f"epoch {epoch}: {broken[0]} is {values[broken[0]]}; lower the learning rates"
            )

    # State

    def state_dict(self) -> dict[str, Any]:
        """See `SearchMethod`."""
        return {
            "supernet": self.supernet.state_dict(),
            "widths": self.supernet.widths(),
            "optimizers": self._steps.state_dict(),
            "generators": self._generator_states(),
            "kernels": self._kernels or self._begun_with,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `SearchMethod`."""
        self.supernet.load_state_dict(state["supernet"])
        self.supernet.set_widths(state["widths"])
        self._steps.load_state_dict(state["optimizers"])
        self._set_generator_states(state["generators"])
        self._begun_with = state["kernels"]

    def _generator_states(self) -> dict[str, Tensor]:
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def _set_generator_states(self, states: dict[str, Tensor]) -> None:
        for name, generator in self._generators.items():
            generator.set_state(states[name])

    # Shared epochs

    def shared_state_dict(self, records: Sequence[EpochRecord]) -> dict[str, Any]:
        """See `SharingMethod`."""
        epochs = [
            {
                "metrics": {name: value for name, value in record.metrics.items() if name in _SHARED_METRICS},
                "train_count_LO": torch.from_numpy(record.arrays["train_count_ELO"]),
                "kernels": record.kernels,
            }
            for record in records
        ]
        return {
            "supernet": self.supernet.state_dict(),
            "widths": self.supernet.widths(),
            "weight_optimizer": self._steps.weight_optimizer.state_dict(),
            "generators": self._generator_states(),
            "epochs": epochs,
        }

    def load_shared_state_dict(self, state: dict[str, Any], num_done: int) -> list[EpochResult]:
        """See `SharingMethod`."""
        self.supernet.load_state_dict(state["supernet"])
        # Shared epochs of an earlier version have no widths: they are the initial ones.
        self.supernet.set_widths(state.get("widths", self.supernet.widths()))
        # The other optimizer has made no step yet, and has this search's own settings.
        self._steps.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self._set_generator_states(state["generators"])
        return [
            self._shared_result(epoch, shared["metrics"], shared["train_count_LO"].numpy(), shared["kernels"])
            for epoch, shared in enumerate(state["epochs"], start=1)
            if epoch > num_done
        ]

    @abstractmethod
    def _shared_result(
        self, epoch: int, metrics: dict[str, float], train_count_LO: NDArray[np.int64], kernels: str | None
    ) -> EpochResult:
        """The result of an epoch that another search computed, as it is for this search.

        Args:
            metrics: those that do not depend on the search.
        """


class MeanMetrics:
    """Running sums of metrics, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Adds a value of a step."""
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of each metric over the steps that have it."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def count(self, name: str) -> float:
        """How many steps had a metric."""
        return float(self._counts.get(name, 0))
