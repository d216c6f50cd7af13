"""Random search: many random networks, evaluated with the weights of one supernet.

The supernet is trained along random networks, for as many weight steps as a differentiable search has.
Then rounds of evaluation follow, which count as epochs.

Shapes: L searchable layers, O candidate operators.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.config import SearchConfig
from nas.foundation.identity import fingerprint
from nas.latency.table import LatencyTable
from nas.search.candidate_pool import draw_pool
from nas.search.method import EpochResult, SearchTask
from nas.search.records import Evaluation, Phase, evaluations_from_state, evaluations_to_state
from nas.search.search_identity import FIELDS_AFTER_WARMUP, RESULTS_VERSION, result_fields
from nas.search.supernet_method import MeanMetrics, SupernetMethod
from nas.space.architecture import Architecture

EVALUATIONS_PER_ROUND = 10


@dataclass(frozen=True)
class Proposal:
    """The networks to evaluate in a round.

    Attributes:
        indices: in the pool.
        scores: what is predicted for each network of the pool, if anything.
        metrics: of the prediction.
    """

    indices: Sequence[int]
    scores: Sequence[float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class RandomSearch(SupernetMethod):
    """The best of `num_evaluations` networks of a random pool."""

    ignored_fields = frozenset(FIELDS_AFTER_WARMUP) - {
        *("target_latency_ms", "elasticity", "refine_widths", "num_evaluations")
    } | {"depth", "num_warmup_epochs"}

    def __init__(self, task: SearchTask) -> None:
        super().__init__(task)
        self._evaluations: list[Evaluation] = []

    @staticmethod
    def check(config: SearchConfig, table: LatencyTable) -> None:
        """See `SearchMethod`: the pool must be large enough."""
        draw_pool(config, table)

    @staticmethod
    def phases(config: SearchConfig) -> list[Phase]:
        """See `SearchMethod`: all weight steps, then rounds of evaluation."""
        training: list[Phase] = ["warmup"]
        evaluation: list[Phase] = ["evaluation"]
        num_rounds = config.num_evaluations // EVALUATIONS_PER_ROUND
        return training * config.num_epochs + evaluation * num_rounds

    @cached_property
    def pool(self) -> list[Architecture]:
        """The networks that may be evaluated."""
        return draw_pool(self.task.config, self.task.table)

    def run_epoch(self, epoch: int) -> EpochResult:
        """Trains an epoch, or evaluates the next networks."""
        self._use_kernels()
        if epoch > self.task.config.num_epochs:
            return self._run_round(is_last=epoch == len(self.task.config.phases))
        if self.task.config.reset_optimizers_each_epoch:
            self._steps.reset_optimizers()
        weight_lr = self._steps.set_weight_lr(epoch)
        if self.task.config.elasticity:
            self._draw_widths()
        metrics, train_count_LO = self._train()
        self._check_finite(epoch, metrics)
        metrics |= {"val_accuracy": self._evaluate_initial(), "weight_lr": weight_lr}
        return self._shared_result(epoch, metrics, train_count_LO, self._kernels)

    # Training

    def _draw_widths(self) -> None:
        """Gives each candidate a random width, so that any width can be evaluated later."""

        def draw(layer: int, op: int) -> int:
            in_channels = self.task.space.layers[layer].in_channels
            low, high = self.task.space.ops[op].width_interval(in_channels)
            return int(torch.randint(low, high + 1, (), generator=self._generators["paths"]))

        self._set_widths(draw)

    def _set_widths(self, width_of: Callable[[int, int], int]) -> None:
        """Gives each candidate a width, and sorts its channels by their present norms."""
        for layer in range(len(self.task.space.layers)):
            for op in range(len(self.task.space.ops)):
                width = width_of(layer, op)
                self.supernet.candidate(layer, op).set_width(width, self._steps.weight_optimizer)

    def _train(self) -> tuple[dict[str, float], NDArray[np.int64]]:
        """One epoch of weight steps, each along a random network."""
        means = MeanMetrics()
        train_count_LO = np.zeros(tuple(self.supernet.alpha.shape), dtype=np.int64)
        for images_BCHW, labels_B in self.task.data.weight_batches(self._generators["weight_batches"]):
            ops_L = self._draw_ops()
            for layer, op in enumerate(ops_L):
                train_count_LO[layer, op] += op >= 0
            (result,) = self._steps.weight_step(images_BCHW, labels_B, [ops_L], are_derived=True)
            means.add("train_loss", result.loss)
            means.add("train_accuracy", result.accuracy)
        return means.means() | {"num_weight_steps": means.count("train_loss")}, train_count_LO

    def _draw_ops(self) -> list[int]:
        """Each layer's operator in a random network, -1 where it is not kept; depths are uniform."""
        space, generator = self.task.space, self._generators["paths"]
        ops = torch.randint(len(space.ops), (len(space.layers),), generator=generator).tolist()
        for stage, spec in enumerate(space.stages):
            first = next(index for index, layer in enumerate(space.layers) if layer.stage == stage)
            lowest = space.min_depth(stage)
            depth = int(torch.randint(lowest, spec.num_layers + 1, (), generator=generator))
            ops[first + depth : first + spec.num_layers] = [-1] * (spec.num_layers - depth)
        return ops

    # Evaluation

    def _run_round(self, *, is_last: bool) -> EpochResult:
        if not self._evaluations:
            # Until now channels are in the order of when their candidate last had another width.
            self._set_widths(lambda layer, op: self.supernet.candidate(layer, op).width)
        proposal = self._propose(is_last=is_last)
        new = tuple(
            self._evaluate_candidate(len(self._evaluations) + place, index, proposal.scores)
            for place, index in enumerate(proposal.indices, start=1)
        )
        self._evaluations += new
        best = max(self._evaluations, key=lambda each: each.val_accuracy)
        metrics = proposal.metrics | {
            "val_accuracy": best.val_accuracy,
            "num_evaluations": float(len(self._evaluations)),
        }
        if is_last:
            space = self.task.space
            self._set_widths(lambda layer, op: space.ops[op].initial_width(space.layers[layer].in_channels))
            metrics["initial_accuracy"] = self._evaluate_initial()
        nothing_LO = np.zeros(tuple(self.supernet.alpha.shape), dtype=np.int64)
        return self._result("evaluation", metrics, nothing_LO, self._kernels, best.architecture, new)

    def _propose(self, *, is_last: bool) -> Proposal:
        """The next networks of the pool."""
        done = len(self._evaluations)
        return Proposal(list(range(done, done + EVALUATIONS_PER_ROUND)))

    def _evaluate_candidate(self, number: int, index: int, scores: Sequence[float] | None) -> Evaluation:
        architecture = self.pool[index]
        ops_L = self._set_network(architecture)
        accuracy = self._evaluate_ops(ops_L)
        latency_ms = self.task.table.latency_ms(architecture)
        score = None if scores is None else float(scores[index])
        return Evaluation(number, architecture, latency_ms, accuracy, score)

    def _set_network(self, architecture: Architecture) -> list[int]:
        """Gives the supernet the widths of a network, and returns its operators, -1 where there is none."""
        space = self.task.space
        ops_L = [-1] * len(space.layers)
        for layer, op, width in architecture.layers:
            index = space.layers.index(layer)
            ops_L[index] = space.ops.index(op)
            candidate = self.supernet.candidate(index, ops_L[index])
            if candidate.width != width:
                candidate.set_width(width, self._steps.weight_optimizer)
        return ops_L

    def _evaluate_initial(self) -> float:
        """Held-out accuracy of the deepest network of first operators, at their present widths."""
        return self._evaluate_ops([0] * len(self.task.space.layers))

    def _evaluate_ops(self, ops_L: Sequence[int]) -> float:
        return self._evaluate(
            lambda images_BCHW: self.supernet.forward_derived(self.supernet.stem_features(images_BCHW), ops_L)
        )

    # Results and state

    def _result(
        self,
        phase: Phase,
        metrics: dict[str, float],
        train_count_LO: NDArray[np.int64],
        kernels: str | None,
        architecture: Architecture,
        evaluations: tuple[Evaluation, ...] = (),
    ) -> EpochResult:
        arrays = {"train_count_ELO": train_count_LO}
        return EpochResult(phase, metrics, architecture, arrays, kernels, evaluations)

    def state_dict(self) -> dict[str, Any]:
        """See `SearchMethod`."""
        return super().state_dict() | {"evaluations": evaluations_to_state(self._evaluations)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `SearchMethod`."""
        super().load_state_dict(state)
        self._evaluations = list(evaluations_from_state(state["evaluations"]))

    @property
    def num_shared_epochs(self) -> int:
        """All that train: they depend neither on the target nor on what is evaluated later."""
        return self.task.config.num_epochs

    @staticmethod
    def shared_hash(config: SearchConfig, data_fingerprint: str, device_type: str) -> str:
        """See `SharingMethod`; equal for all methods whose supernets are trained alike."""
        # Widths are drawn with elasticity only.
        ignored = {*FIELDS_AFTER_WARMUP, "method"} - {"elasticity"}
        fields = {name: value for name, value in result_fields(config).items() if name not in ignored}
        return fingerprint(
            {
                "trained_along": "random networks",
                "results_version": RESULTS_VERSION,
                "config": fields,
                "data": data_fingerprint,
                "device": device_type,
            }
        )

    def _shared_result(
        self, epoch: int, metrics: dict[str, float], train_count_LO: NDArray[np.int64], kernels: str | None
    ) -> EpochResult:
        # Nothing is evaluated yet; until then, the first network of the pool stands for the result.
        return self._result("warmup", metrics, train_count_LO, kernels, self.pool[0])
