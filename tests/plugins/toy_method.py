"""A search method: draw a network in each epoch, keep the fastest, and train nothing."""

from typing import Any

import numpy as np

from nas.search.method import EpochResult, SearchMethod, SearchTask
from nas.search.methods import METHODS
from nas.space.architecture import Architecture, draw_architecture


class Fastest(SearchMethod):
    """The fastest of the networks drawn so far."""

    ignored_fields = frozenset({"sampling", "depth", "objective", "latency_weight"})

    def __init__(self, task: SearchTask) -> None:
        super().__init__(task)
        self._best = draw_architecture(task.space, np.random.default_rng(task.config.seed))

    def run_epoch(self, epoch: int) -> EpochResult:
        drawn = draw_architecture(self.task.space, np.random.default_rng([self.task.config.seed, epoch]))
        self._best = min(self._best, drawn, key=self.task.table.latency_ms)
        return EpochResult("joint", {"val_accuracy": 1 / 3}, self._best, {})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best.model_dump(mode="json")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best = Architecture.model_validate(state["best"])


METHODS.register("fastest", Fastest)
