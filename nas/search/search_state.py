"""The state of a search between two epochs: what is in a checkpoint.

Shapes: L searchable layers, O candidate operators.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.config import SearchConfig
from nas.data.search_data import SearchData, load_search_data
from nas.foundation.checkpoint import load_newest_checkpoint, newest_epoch, save_checkpoint
from nas.foundation.device import resolve_device
from nas.latency.elasticity import ScalingReport
from nas.latency.table import LatencyTable
from nas.search.observation import observe_arrays, observe_metrics
from nas.search.records import GPU_METRIC_NAMES, EpochRecord, Phase, records_from_state, records_to_state
from nas.search.search_identity import config_hash, warmup_hash
from nas.space.macro_space import Space, get_space
from nas.supernet.sampling import temperature_at
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet

_STREAMS = ("weight_batches", "arch_batches", "paths")

_WARMUP_METRICS = (
    *("train_loss", "train_accuracy", "val_accuracy"),
    *("weight_lr", "epoch_seconds", "num_skipped_images", *GPU_METRIC_NAMES),
)
"""What warm-up epochs measure; the other metrics depend on the target, the table or the temperature."""


class SearchState:
    """All that the next epoch depends on. Weights, alpha, beta and widths are in the supernet.

    No epoch draws from the global generators, and the learning rate and the temperature follow
    from the number of the epoch: neither is kept.

    Attributes:
        records: one for each epoch that is done.
        supernet: weights, alpha, beta and widths.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable) -> None:
        self.config = config
        self.table = table
        self.space: Space = get_space(config.space)
        self.device = resolve_device(config.device)
        self.data: SearchData = load_search_data(config, self.space.resolution)
        self.supernet = Supernet(self.space, self.data.num_classes, config.depth, seed=config.seed)
        self.supernet.to(self.device)
        self.records: list[EpochRecord] = []
        # Draws of batches and of paths are apart, so that cells of a grid see the same batches.
        self._generators = {
            name: torch.Generator().manual_seed(config.seed * len(_STREAMS) + index)
            for index, name in enumerate(_STREAMS)
        }
        self._steps = SearchSteps(self.supernet, config, table)

    @property
    def epoch(self) -> int:
        """Number of epochs that are done."""
        return len(self.records)

    def _add_record(
        self,
        phase: Phase,
        metrics: dict[str, float],
        train_count_LO: NDArray[np.int64],
        scaling: ScalingReport | None = None,
        *,
        is_shared: bool = False,
    ) -> EpochRecord:
        """Appends the next epoch's record: what was measured, and what the supernet now shows."""
        observed = observe_metrics(self.supernet, self.table, self.config.target_latency_ms)
        record = EpochRecord(
            epoch=self.epoch + 1,
            phase=phase,
            metrics=metrics | observed | {"temperature": self._temperature(self.epoch + 1)},
            architecture=self.supernet.derive(),
            arrays=observe_arrays(
                self.supernet, train_count_LO, scaling, refine_widths=self.config.refine_widths
            ),
            is_shared=is_shared,
        )
        self.records.append(record)
        return record

    def _temperature(self, epoch: int) -> float:
        return temperature_at(
            epoch,
            num_warmup_epochs=self.config.num_warmup_epochs,
            initial_temperature=self.config.initial_temperature,
            temperature_decay=self.config.temperature_decay,
        )

    # Checkpoints

    def save(self, directory: Path) -> None:
        """Writes a checkpoint of all that the next epoch depends on."""
        save_checkpoint(directory, self.epoch, self.state_dict(), self._identity())

    def load(self, directory: Path) -> None:
        """Goes on from the newest intact checkpoint of a folder, if there is one.

        Raises:
            UserError: the checkpoint is of another search.
        """
        state = load_newest_checkpoint(directory, self._identity())
        if state is not None:
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors, numbers and strings."""
        return {
            "supernet": self.supernet.state_dict(),
            "widths": self.supernet.widths(),
            "optimizers": self._steps.state_dict(),
            "generators": self._generator_states(),
            "records": records_to_state(self.records),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a state of `state_dict`."""
        self.supernet.load_state_dict(state["supernet"])
        self.supernet.set_widths(state["widths"])
        self._steps.load_state_dict(state["optimizers"])
        self._set_generator_states(state["generators"])
        self.records = records_from_state(state["records"])

    def _generator_states(self) -> dict[str, Tensor]:
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def _set_generator_states(self, states: dict[str, Tensor]) -> None:
        for name, generator in self._generators.items():
            generator.set_state(states[name])

    def _identity(self) -> str:
        return config_hash(self.config, self.table.fingerprint, self.data.fingerprint)

    # Shared warm-ups

    @property
    def warmup_identity(self) -> str:
        """Equal for searches whose warm-up epochs are the same."""
        return warmup_hash(self.config, self.data.fingerprint, self.device.type)

    def save_warmup(self, directory: Path) -> None:
        """Writes a checkpoint of what warm-up changed and measured; nothing in it is this search's own."""
        epochs = [
            {
                "metrics": {name: value for name, value in record.metrics.items() if name in _WARMUP_METRICS},
                "train_count_LO": torch.from_numpy(record.arrays["train_count_ELO"]),
            }
            for record in self.records
        ]
        state = {
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self._steps.weight_optimizer.state_dict(),
            "generators": self._generator_states(),
            "epochs": epochs,
        }
        save_checkpoint(directory, self.epoch, state, self.warmup_identity)

    def take_up_warmup(self, directory: Path) -> None:
        """Takes up the epochs that a folder has more than are done here, if any."""
        if newest_epoch(directory) <= self.epoch:
            return
        state = load_newest_checkpoint(directory, self.warmup_identity)
        if state is None or len(state["epochs"]) <= self.epoch:
            return
        self.supernet.load_state_dict(state["supernet"])
        # The other optimiser has made no step yet, and has this search's own settings.
        self._steps.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self._set_generator_states(state["generators"])
        for epoch in state["epochs"][self.epoch :]:
            self._add_record("warmup", epoch["metrics"], epoch["train_count_LO"].numpy(), is_shared=True)
