"""What the records of a search must be, recomputed from the rawest of them.

From alphas, betas, training counts, the lookup table and the config follow the operators and widths of every
epoch, its latencies, the derived network and the health checks. Losses, accuracies and times are measured;
only repeating the search gives them again.

Shapes: E epochs, L searchable layers, O candidates, S stages, D depths of a stage.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.config import SearchConfig
from nas.latency.elasticity import ScalingReport, elasticity_scaling, latency_error_percent
from nas.latency.table import LatencyTable
from nas.search.candidate_pool import draw_candidates
from nas.search.health import HealthCheck, check_health
from nas.search.records import EpochRecord, Evaluation, Trajectory
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import Space, get_space
from nas.space.redundancy import has_other_encodings
from nas.supernet.derivation import networks_in_reach
from nas.supernet.expected_latency import ExpectedLatency
from nas.supernet.sampling import SAMPLINGS, no_second_path, temperature_at

TOLERANCE = 1e-9
"""Largest relative difference of sums in double precision."""

FLOAT32_TOLERANCE = 1e-5
"""Largest relative difference of sums in single precision, whose order may differ between machines."""

DROPPED = -1


@dataclass(frozen=True)
class Recomputed:
    """A quantity of a search as it is stored and as it is recomputed.

    Attributes:
        stored: an array, a number, a text or a network.
        tolerance: largest relative difference that counts as equal; 0 if both must be identical.
    """

    quantity: str
    stored: Any
    recomputed: Any
    tolerance: float = 0.0


@dataclass(frozen=True)
class SearchRecords:
    """What is stored of a search.

    Attributes:
        epochs: the values of each metric by epoch; NaN where an epoch lacks it.
        evaluations: of all epochs, with the epoch of each.
        health: None if it is older than health checks.
    """

    config: SearchConfig
    table: LatencyTable
    trajectory: Trajectory
    epochs: Mapping[str, NDArray[np.float64]]
    architecture: Architecture
    evaluations: Sequence[tuple[int, Evaluation]] = ()
    health: Sequence[HealthCheck] | None = None


def recompute(records: SearchRecords) -> Iterator[Recomputed]:
    """Recomputes everything that follows from other records of a search.

    Each value is recomputed from stored ones that are rawer, so that a disagreement names its place.
    """
    num_epochs = len(records.trajectory.epoch_E)
    if num_epochs < records.config.num_epochs:
        # Whoever wrote the config may ask for a list of any length.
        yield Recomputed("number of epochs", num_epochs, records.config.num_epochs)
        return
    has_alphas = records.trajectory.alpha_ELO is not None
    course = _Differentiable(records) if has_alphas else _Evaluated(records)
    yield from course.recompute()


class _Course(ABC):
    """The course of a search by any method: networks of its epochs, and what follows from them."""

    def __init__(self, records: SearchRecords) -> None:
        self.records = records
        self.config = records.config.as_searched()
        self.space: Space = get_space(self.config.space)
        self.seen = records.trajectory
        self.phases = self.config.phases

    @cached_property
    @abstractmethod
    def networks(self) -> list[Architecture]:
        """The derived network of each epoch, by what is stored."""

    def recompute(self) -> Iterator[Recomputed]:
        num_epochs = len(self.phases)
        yield Recomputed("space", self.seen.space, self.config.space)
        yield Recomputed("depth space", self.seen.depth, self.config.depth)
        yield Recomputed("epochs", self.seen.epoch_E, np.arange(1, num_epochs + 1))
        is_joint_E = np.array([phase == "joint" for phase in self.phases])
        yield Recomputed("joint epochs", self.seen.is_joint_E, is_joint_E)
        if len(self.seen.epoch_E) != num_epochs or any(
            len(values) != num_epochs for values in self.records.epochs.values()
        ):
            yield Recomputed("number of epochs", len(self.seen.epoch_E), num_epochs)
            return
        yield from self._recompute_own()
        latency_E = np.array([self.records.table.latency_ms(network) for network in self.networks])
        target_ms = self.config.target_latency_ms
        by_metric = {
            "derived_latency_ms": latency_E,
            "latency_error_percent": np.array([latency_error_percent(each, target_ms) for each in latency_E]),
            "derived_depth": np.array([float(network.depth) for network in self.networks]),
        }
        for name, values_E in by_metric.items():
            yield self.metric(name, values_E)
        yield Recomputed("derived network", _text(self.records.architecture), _text(self.networks[-1]))
        if self.records.health is not None:
            checks = check_health(self.records.config, self._epoch_records())
            yield Recomputed("health", list(map(str, self.records.health)), list(map(str, checks)))
            num_findings = float(sum(not check.is_healthy for check in checks))
            stored = self.records.epochs["num_health_findings"][-1]
            yield Recomputed("num_health_findings", stored, num_findings)

    def metric(
        self,
        name: str,
        values_E: NDArray[np.float64],
        where_E: NDArray[np.bool_] | None = None,
        tolerance: float = TOLERANCE,
    ) -> Recomputed:
        """A metric by epoch, or in the epochs where it is."""
        stored_E = self.records.epochs.get(name, np.full(len(values_E), np.nan))
        chosen_E = np.ones(len(values_E), bool) if where_E is None else where_E
        return Recomputed(name, stored_E[chosen_E], values_E[chosen_E], tolerance)

    @abstractmethod
    def _recompute_own(self) -> Iterator[Recomputed]: ...

    def _epoch_records(self) -> list[EpochRecord]:
        """The epochs as the search recorded them."""
        arrays = {
            field.name: getattr(self.seen, field.name)
            for field in fields(self.seen)
            if field.name not in ("space", "depth", "epoch_E", "is_joint_E")
            and getattr(self.seen, field.name) is not None
        }
        return [
            EpochRecord(
                epoch=epoch + 1,
                phase=phase,
                metrics={
                    name: float(values_E[epoch])
                    for name, values_E in self.records.epochs.items()
                    if not math.isnan(values_E[epoch])
                },
                architecture=self.networks[epoch],
                arrays={name: array[epoch] for name, array in arrays.items()},
            )
            for epoch, phase in enumerate(self.phases)
        ]


class _Differentiable(_Course):
    """A search with alphas, and with betas in the sink space."""

    @cached_property
    def networks(self) -> list[Architecture]:
        widths_ELO = self.seen.mid_channels_ELO
        assert widths_ELO is not None
        return [
            _network(self.space, ops_L, widths_LO)
            for ops_L, widths_LO in zip(self.seen.derived_op_EL, widths_ELO, strict=True)
        ]

    def _recompute_own(self) -> Iterator[Recomputed]:
        seen = self.seen
        assert seen.alpha_ELO is not None
        assert seen.mid_channels_ELO is not None
        yield Recomputed("operators and depths", seen.derived_op_EL, self._derived_EL())
        initial_LO = np.zeros_like(seen.mid_channels_ELO[0])
        for row, layer in enumerate(self.space.layers):
            initial_LO[row, : len(self.space.ops)] = [
                op.initial_width(layer.in_channels) for op in self.space.ops
            ]
        before_ELO = np.concatenate([initial_LO[None], seen.mid_channels_ELO[:-1]])
        widths_ELO, scaling_EP = self._scaled(before_ELO)
        yield Recomputed("widths", seen.mid_channels_ELO, widths_ELO)
        if seen.scaling_ms_EP is not None:
            yield Recomputed("latencies of scaling", seen.scaling_ms_EP, scaling_EP, TOLERANCE)
        is_skip = self.config.depth == "skip"
        redundant_E = np.array(
            [is_skip and has_other_encodings(self.space, ops_L.tolist()) for ops_L in seen.derived_op_EL]
        )
        if seen.redundant_E is not None:
            yield Recomputed("redundant epochs", seen.redundant_E, redundant_E)
        yield self.metric("redundant_encoding", redundant_E.astype(float))
        yield self.metric("alpha_entropy", self._entropy_E(), tolerance=FLOAT32_TOLERANCE)
        expected_ms_E = self._expected_latency_E()
        yield self.metric("expected_latency_ms", expected_ms_E, tolerance=FLOAT32_TOLERANCE)
        yield self.metric("temperature", self._temperature_E())
        yield self.metric("weight_lr", _weight_lr_E(self.config, len(self.phases)))
        if seen.train_count_ELO is not None and "num_weight_steps" in self.records.epochs:
            has_second = SAMPLINGS[self.config.sampling] is not no_second_path
            num_paths_E = 1 + (seen.is_joint_E & has_second)
            num_trained_E = self.records.epochs["num_weight_steps"] * num_paths_E
            expected_EL = np.repeat(num_trained_E[:, None], len(self.space.layers), axis=1)
            yield Recomputed("training counts", seen.train_count_ELO.sum(-1), expected_EL)

    def _derived_EL(self) -> NDArray[np.int64]:
        """Each layer's operator by alphas and betas; among equals, the stored one."""
        seen, num_ops = self.seen, len(self.space.ops)
        assert seen.alpha_ELO is not None
        stored_EL = np.where(seen.derived_op_EL == DROPPED, num_ops, seen.derived_op_EL)
        stages = [
            [index for index, layer in enumerate(self.space.layers) if layer.stage == stage]
            for stage in range(len(self.space.stages))
        ]
        rows = []
        for epoch, alpha_LO in enumerate(seen.alpha_ELO):
            leading_L = _largest(alpha_LO, stored_EL[epoch])
            ops_L = np.where(leading_L == num_ops, DROPPED, leading_L)
            if self.config.depth == "sink":
                assert seen.beta_ESD is not None
                kept_L = seen.derived_op_EL[epoch] != DROPPED
                num_kept_S = np.array([kept_L[layers].sum() for layers in stages])
                for layers, depth in zip(stages, _largest(seen.beta_ESD[epoch], num_kept_S), strict=True):
                    ops_L[layers[depth:]] = DROPPED
            rows.append(ops_L)
        if self.config.elasticity and self.config.derivation == "in_reach":
            rows[-1] = self._in_reach(rows[-1])
        return np.stack(rows)

    def _in_reach(self, most_probable_L: NDArray[np.int64]) -> NDArray[np.int64]:
        """The operators of the last epoch: of the most probable network that scaling brings to the target."""
        seen, table, target_ms = self.seen, self.records.table, self.config.target_latency_ms
        assert seen.alpha_ELO is not None
        assert seen.mid_channels_ELO is not None
        log_beta_SD = (
            torch.from_numpy(seen.beta_ESD[-1])
            if self.config.depth == "sink" and seen.beta_ESD is not None
            else None
        )
        before_LO = seen.mid_channels_ELO[max(len(self.phases) - 2, 0)]
        log_alpha_LO = torch.from_numpy(seen.alpha_ELO[-1])
        for ops in networks_in_reach(self.space, log_alpha_LO, log_beta_SD, table, target_ms):
            report = self._scale(_network(self.space, ops, before_LO))
            if report.meets(target_ms) and not report.is_at_bound:
                return np.array(ops)
        return most_probable_L

    def _scale(self, network: Architecture) -> ScalingReport:
        return elasticity_scaling(
            network,
            self.records.table,
            self.config.target_latency_ms,
            refine=self.config.refine_widths,
        )

    def _scaled(self, before_ELO: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Widths after each epoch, and the latencies of their scaling, by the widths before it."""
        after_ELO = before_ELO.copy()
        num_phases = 1 + len(self.space.stages) + self.config.refine_widths
        scaling_EP = np.full((len(before_ELO), num_phases), np.nan)
        for epoch, ops_L in enumerate(self.seen.derived_op_EL):
            if not self.seen.is_joint_E[epoch] or not self.config.elasticity:
                continue
            report = self._scale(_network(self.space, ops_L, before_ELO[epoch]))
            scaling_EP[epoch, : len(report.latencies_ms)] = report.latencies_ms
            kept = np.flatnonzero(ops_L != DROPPED)
            after_ELO[epoch, kept, ops_L[kept]] = [width for _, _, width in report.architecture.layers]
        return after_ELO, scaling_EP

    def _entropy_E(self) -> NDArray[np.float64]:
        alpha_ELO = self.seen.alpha_ELO
        assert alpha_ELO is not None
        is_there_ELO = np.isfinite(alpha_ELO)
        finite_ELO = np.where(is_there_ELO, alpha_ELO, 0).astype(np.float64)
        terms_ELO = np.where(is_there_ELO, np.exp(finite_ELO) * finite_ELO, 0)
        entropy_E = (-terms_ELO.sum(-1) / np.log(is_there_ELO.sum(-1))).mean(-1)
        return np.asarray(entropy_E, np.float64)

    def _expected_latency_E(self) -> NDArray[np.float64]:
        seen, expected = self.seen, ExpectedLatency(self.space)
        assert seen.alpha_ELO is not None
        assert seen.mid_channels_ELO is not None
        values = []
        for epoch, alpha_LO in enumerate(seen.alpha_ELO):
            beta_SD = (
                torch.from_numpy(seen.beta_ESD[epoch]).exp()
                if self.config.depth == "sink" and seen.beta_ESD is not None
                else None
            )
            widths_LO = seen.mid_channels_ELO[epoch].tolist()
            values.append(
                float(expected(self.records.table, widths_LO, torch.from_numpy(alpha_LO).exp(), beta_SD))
            )
        return np.array(values)

    def _temperature_E(self) -> NDArray[np.float64]:
        config = self.config
        return np.array(
            [
                temperature_at(
                    epoch,
                    num_warmup_epochs=config.num_warmup_epochs,
                    initial_temperature=config.initial_temperature,
                    temperature_decay=config.temperature_factor,
                )
                for epoch in range(1, len(self.phases) + 1)
            ]
        )


class _Evaluated(_Course):
    """A search that evaluates networks of a random pool, the best of which is its result."""

    @cached_property
    def networks(self) -> list[Architecture]:
        networks = []
        for epoch in range(1, len(self.phases) + 1):
            done = [each for of_epoch, each in self.records.evaluations if of_epoch <= epoch]
            best = max(done, key=lambda each: each.val_accuracy, default=None)
            networks.append(self._pool[0] if best is None else best.architecture)
        return networks

    @cached_property
    def _pool(self) -> list[Architecture]:
        """The networks that random search evaluates, in order; at least one."""
        num = len(self.records.evaluations) if self.config.method == "random" else 1
        return list(islice(draw_candidates(self.config, self.records.table), max(num, 1)))

    def _recompute_own(self) -> Iterator[Recomputed]:
        evaluations = [each for _, each in self.records.evaluations]
        epoch_N = np.array([epoch for epoch, _ in self.records.evaluations])
        yield Recomputed(
            "numbers of evaluations",
            np.array([each.number for each in evaluations]),
            np.arange(1, len(evaluations) + 1),
        )
        latency_N = np.array([self.records.table.latency_ms(each.architecture) for each in evaluations])
        stored_N = np.array([each.latency_ms for each in evaluations])
        yield Recomputed("latencies of evaluated networks", stored_N, latency_N, TOLERANCE)
        if self.config.method == "random":
            networks = [_text(each.architecture) for each in evaluations]
            yield Recomputed("evaluated networks", networks, list(map(_text, self._pool)))
        derived_EL = np.stack([_ops(self.space, network) for network in self.networks])
        yield Recomputed("operators and depths", self.seen.derived_op_EL, derived_EL)
        is_evaluation_E = np.array([phase == "evaluation" for phase in self.phases])
        num_done_E = np.array([(epoch_N <= epoch).sum() for epoch in self.seen.epoch_E], float)
        best_E = np.array(
            [
                max(
                    (each.val_accuracy for own, each in self.records.evaluations if own <= epoch),
                    default=np.nan,
                )
                for epoch in self.seen.epoch_E
            ]
        )
        yield self.metric("num_evaluations", num_done_E, is_evaluation_E)
        yield self.metric("val_accuracy", best_E, is_evaluation_E)
        yield self.metric("weight_lr", _weight_lr_E(self.config, len(self.phases)), ~is_evaluation_E)


def _weight_lr_E(config: SearchConfig, num_epochs: int) -> NDArray[np.float64]:
    progress_E = np.arange(num_epochs) / config.num_epochs
    return np.asarray(config.weight_lr * (1 + np.cos(np.pi * progress_E)) / 2)


def _largest(log_probability_RC: NDArray[np.float32], preferred_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """The column of the largest value of each row; among equals the preferred one."""
    rows = np.arange(len(log_probability_RC))
    num_columns = log_probability_RC.shape[1]
    inside_R = np.clip(preferred_R, 0, num_columns - 1)
    is_largest_R = log_probability_RC[rows, inside_R] == log_probability_RC.max(-1)
    return np.where(is_largest_R & (inside_R == preferred_R), preferred_R, log_probability_RC.argmax(-1))


def _network(
    space: Space, ops_L: Sequence[int] | NDArray[np.int64], widths_LO: NDArray[np.int64]
) -> Architecture:
    stages: list[list[LayerChoice]] = [[] for _ in space.stages]
    for index, (op, layer) in enumerate(zip(ops_L, space.layers, strict=True)):
        if op != DROPPED:
            width = int(widths_LO[index, op])
            stages[layer.stage].append(LayerChoice(op=space.ops[op].name, mid_channels=width))
    return Architecture(space=space.name, stages=tuple(map(tuple, stages)))


def _ops(space: Space, network: Architecture) -> NDArray[np.int64]:
    ops_L = np.full(len(space.layers), DROPPED)
    for layer, op, _ in network.layers:
        ops_L[space.layers.index(layer)] = space.ops.index(op)
    return ops_L


def _text(network: Architecture) -> str:
    return network.model_dump_json(exclude={"name"})
