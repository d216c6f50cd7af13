"""TF-NAS: warm-up of the weights, then weights, alphas and betas in turn, and elasticity-scaling.

Shapes: L searchable layers, O candidate operators.

Source: TF-NAS, search procedure and implementation details.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from nas.config import SearchConfig
from nas.foundation.errors import DivergedError
from nas.latency.elasticity import ScalingReport, elasticity_scaling
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.method import EpochResult, SearchTask, SharingMethod
from nas.search.observation import observe_arrays, observe_metrics
from nas.search.records import GPU_METRIC_NAMES, EpochRecord, Phase
from nas.search.search_identity import warmup_hash
from nas.supernet.derivation import networks_in_reach
from nas.supernet.kernels import Kernels, block_of, choose_kernels
from nas.supernet.objectives import check_latencies
from nas.supernet.sampling import SAMPLINGS, sample_first_path, temperature_at
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet

_STREAMS = ("weight_batches", "arch_batches", "paths")

_WARMUP_METRICS = (
    *("train_loss", "train_accuracy", "val_accuracy"),
    *("weight_lr", "epoch_seconds", "num_skipped_images", *GPU_METRIC_NAMES),
)
"""What warm-up epochs measure; the other metrics depend on the target, the table or the temperature."""


class TfNas(SharingMethod):
    """A differentiable search. Weights, alpha, beta and widths are in the supernet.

    No epoch draws from the global generators, and the learning rate and the temperature follow
    from the number of the epoch: neither is kept.

    Attributes:
        supernet: weights, alpha, beta and widths.
    """

    def __init__(self, task: SearchTask) -> None:
        super().__init__(task)
        config = task.config
        self.supernet = Supernet(task.space, task.data.num_classes, config.depth, seed=config.seed)
        self.supernet.to(task.device)
        self._kernels: Kernels | None = None
        self._begun_with: str | None = None
        # Draws of batches and of paths are apart, so that cells of a grid see the same batches.
        self._generators = {
            name: Generator().manual_seed(config.seed * len(_STREAMS) + index)
            for index, name in enumerate(_STREAMS)
        }
        self._steps = SearchSteps(self.supernet, config, task.table)

    @staticmethod
    def check(config: SearchConfig, table: LatencyTable) -> None:
        """See `SearchMethod`."""
        check_latencies(config.objective, config.objective_fields(), reachable_interval_ms(table))

    def run_epoch(self, epoch: int) -> EpochResult:
        """Trains an epoch, scales widths to the target, and evaluates."""
        config = self.task.config
        # Chosen late: a checkpoint may fix the kernels, and a finished search needs none.
        self._use_kernels()
        phase: Phase = "warmup" if epoch <= config.num_warmup_epochs else "joint"
        if config.reset_optimizers_each_epoch:
            self._steps.reset_optimizers()
        weight_lr = self._steps.set_weight_lr(epoch)
        self._steps.set_arch_lr(epoch)
        metrics, train_count_LO = self._train(phase, self._temperature(epoch))
        self._check_finite(epoch, metrics)
        if epoch == config.num_epochs and config.elasticity and config.derivation == "in_reach":
            self._derive_in_reach()
        scaling = self._scale_widths() if phase == "joint" and config.elasticity else None
        leading_L = self.supernet.log_alpha().argmax(-1).tolist()
        metrics |= {"val_accuracy": self._evaluate(leading_L), "weight_lr": weight_lr}
        if epoch == config.num_epochs:
            metrics["initial_accuracy"] = self._evaluate([0] * len(leading_L))
        return self._result(epoch, phase, metrics, train_count_LO, scaling, kernels=self._kernels)

    def _use_kernels(self) -> None:
        """Chooses what computes the mixed blocks, once."""
        if self._kernels is None:
            config = self.task.config
            self._kernels = choose_kernels(
                config.kernels,
                self.task.device,
                mixed_precision=config.mixed_precision,
                begun_with=self._begun_with,
            )
            self.supernet.set_block(block_of(self._kernels))

    def _result(
        self,
        epoch: int,
        phase: Phase,
        metrics: dict[str, float],
        train_count_LO: NDArray[np.int64],
        scaling: ScalingReport | None = None,
        *,
        kernels: str | None,
    ) -> EpochResult:
        """What was measured, and what the supernet now shows."""
        task = self.task
        observed = observe_metrics(self.supernet, task.table)
        return EpochResult(
            phase,
            metrics | observed | {"temperature": self._temperature(epoch)},
            self.supernet.derive(),
            observe_arrays(self.supernet, train_count_LO, scaling, refine_widths=task.config.refine_widths),
            kernels,
        )

    def _temperature(self, epoch: int) -> float:
        config = self.task.config
        return temperature_at(
            epoch,
            num_warmup_epochs=config.num_warmup_epochs,
            initial_temperature=config.initial_temperature,
            temperature_decay=config.temperature_factor,
        )

    # Steps

    def _train(self, phase: Phase, temperature: float) -> tuple[dict[str, float], NDArray[np.int64]]:
        """One epoch of steps: means of the metrics, and how often each candidate was trained."""
        data = self.task.data
        sums = _Sums()
        train_count_LO = np.zeros(tuple(self.supernet.alpha.shape), dtype=np.int64)
        arch_batches = data.arch_batches(self._generators["arch_batches"])
        log_alpha_LO = self.supernet.log_alpha().detach().cpu()
        weight_batches = data.weight_batches(self._generators["weight_batches"])
        for step, (images_BCHW, labels_B) in enumerate(weight_batches, start=1):
            paths = self._sample_paths(phase, log_alpha_LO)
            for path in paths:
                train_count_LO[np.arange(len(path)), path] += 1
            first = self._steps.weight_step(images_BCHW, labels_B, paths)[0]
            sums.add("train_loss", first.loss)
            sums.add("train_accuracy", first.accuracy)
            if phase == "joint" and step % self.task.config.weight_steps_per_arch_step == 0:
                images_BCHW, labels_B = next(arch_batches)
                loss = self._steps.arch_step(images_BCHW, labels_B, temperature, self._generators["paths"])
                sums.add("arch_loss", loss)
                log_alpha_LO = self.supernet.log_alpha().detach().cpu()
        return sums.means(), train_count_LO

    def _sample_paths(self, phase: Phase, log_alpha_LO: Tensor) -> list[list[int]]:
        generator = self._generators["paths"]
        first_L = sample_first_path(log_alpha_LO, generator)
        second_L = None
        if phase == "joint":
            second_L = SAMPLINGS[self.task.config.sampling](log_alpha_LO, first_L, generator)
        return [first_L.tolist()] if second_L is None else [first_L.tolist(), second_L.tolist()]

    def _scale_widths(self) -> ScalingReport:
        report = self._scaled()
        self.supernet.set_derived_widths(report.architecture, self._steps.weight_optimizer)
        return report

    def _scaled(self) -> ScalingReport:
        config = self.task.config
        return elasticity_scaling(
            self.supernet.derive(), self.task.table, config.target_latency_ms, refine=config.refine_widths
        )

    def _derive_in_reach(self) -> None:
        """From now on derives the most probable network that scaling brings to the target.

        Where there is none, the derived network stays the most probable one.
        """
        supernet, target_ms = self.supernet, self.task.config.target_latency_ms
        log_beta_SD = supernet.log_beta().detach() if supernet.depth == "sink" else None
        log_alpha_LO = supernet.log_alpha().detach()
        for kept_ops in networks_in_reach(
            supernet.space, log_alpha_LO, log_beta_SD, self.task.table, target_ms
        ):
            supernet.kept_ops = kept_ops
            report = self._scaled()
            # Near the ends of what widths allow, steps can be too coarse, or no width is left to choose.
            if report.meets(target_ms) and not report.is_at_bound:
                return
        supernet.kept_ops = None

    @torch.no_grad()
    def _evaluate(self, path: list[int]) -> float:
        """Held-out accuracy of a path, at the depth that the supernet is trained at."""
        num_correct = torch.zeros((), device=self.task.device)
        num_images = 0
        for images_BCHW, labels_B in self.task.data.val_batches():
            with self._steps.autocast():
                logits_BK = self.supernet(images_BCHW, path)
            num_correct += (logits_BK.argmax(-1) == labels_B).sum()
            num_images += len(labels_B)
        return float(num_correct) / num_images

    def _check_finite(self, epoch: int, metrics: dict[str, float]) -> None:
        values = metrics | {
            "alpha": float(self.supernet.alpha.detach().sum()),
            "beta": float(self.supernet.beta.detach().sum()),
        }
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

    # Shared warm-ups

    @property
    def num_shared_epochs(self) -> int:
        """Those of warm-up."""
        return self.task.config.num_warmup_epochs

    @property
    def shared_identity(self) -> str:
        """Equal for searches whose warm-up epochs are the same."""
        return warmup_hash(self.task.config, self.task.data.fingerprint, self.task.device.type)

    def shared_state_dict(self, records: Sequence[EpochRecord]) -> dict[str, Any]:
        """See `SharingMethod`."""
        epochs = [
            {
                "metrics": {name: value for name, value in record.metrics.items() if name in _WARMUP_METRICS},
                "train_count_LO": torch.from_numpy(record.arrays["train_count_ELO"]),
                "kernels": record.kernels,
            }
            for record in records
        ]
        return {
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self._steps.weight_optimizer.state_dict(),
            "generators": self._generator_states(),
            "epochs": epochs,
        }

    def load_shared_state_dict(self, state: dict[str, Any], num_done: int) -> list[EpochResult]:
        """See `SharingMethod`."""
        self.supernet.load_state_dict(state["supernet"])
        # The other optimizer has made no step yet, and has this search's own settings.
        self._steps.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self._set_generator_states(state["generators"])
        return [
            self._result(
                epoch,
                "warmup",
                shared["metrics"],
                shared["train_count_LO"].numpy(),
                kernels=shared["kernels"],
            )
            for epoch, shared in enumerate(state["epochs"], start=1)
            if epoch > num_done
        ]


class _Sums:
    """Running sums of metrics, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}
