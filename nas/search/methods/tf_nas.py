"""TF-NAS: warm-up of the weights, then weights, alphas and betas in turn, and elasticity-scaling.

Shapes: L searchable layers, O candidate operators.

Source: TF-NAS, search procedure and implementation details.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.config import SearchConfig
from nas.latency.elasticity import ScalingReport, elasticity_scaling
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.method import EpochResult
from nas.search.observation import observe_arrays, observe_metrics
from nas.search.records import Phase
from nas.search.search_identity import warmup_hash
from nas.search.supernet_method import MeanMetrics, SupernetMethod
from nas.supernet.derivation import networks_in_reach
from nas.supernet.objectives import MULTIPLIER, check_latencies
from nas.supernet.sampling import SAMPLINGS, sample_first_path, temperature_at


class TfNas(SupernetMethod):
    """A differentiable search; the temperature follows from the number of the epoch."""

    ignored_fields = frozenset({"num_evaluations", "evaluation_sample"})

    @staticmethod
    def check(config: SearchConfig, table: LatencyTable) -> None:
        """See `SearchMethod`."""
        check_latencies(config.objective, config.objective_fields(), reachable_interval_ms(table))

    def run_epoch(self, epoch: int) -> EpochResult:
        """Trains an epoch, scales widths to the target, and evaluates."""
        config = self.task.config
        self._use_kernels()
        phase: Phase = "warmup" if epoch <= config.num_warmup_epochs else "joint"
        if config.reset_optimizers_each_epoch:
            self._steps.reset_optimizers()
        weight_lr = self._steps.set_weight_lr(epoch)
        self._steps.set_arch_lr(epoch)
        metrics, train_count_LO = self._train(phase, self._temperature(epoch))
        alpha, beta = (float(each.detach().sum()) for each in (self.supernet.alpha, self.supernet.beta))
        self._check_finite(epoch, metrics | self._multiplier() | {"alpha": alpha, "beta": beta})
        if epoch == config.num_epochs and config.elasticity and config.derivation == "in_reach":
            self._derive_in_reach()
        scaling = self._scale_widths() if phase == "joint" and config.elasticity else None
        leading_L = self.supernet.log_alpha().argmax(-1).tolist()
        metrics |= {"val_accuracy": self._evaluate_path(leading_L), "weight_lr": weight_lr}
        if epoch == config.num_epochs:
            metrics["initial_accuracy"] = self._evaluate_path([0] * len(leading_L))
        return self._result(epoch, phase, metrics, train_count_LO, scaling, kernels=self._kernels)

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
            metrics | observed | self._multiplier() | {"temperature": self._temperature(epoch)},
            self.supernet.derive(),
            observe_arrays(self.supernet, train_count_LO, scaling, refine_widths=task.config.refine_widths),
            kernels,
        )

    def _multiplier(self) -> dict[str, float]:
        """The metric of an objective that learns one; nothing under the others."""
        multiplier = self._steps.latency_multiplier
        return {} if multiplier is None else {MULTIPLIER: float(multiplier.detach())}

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
        sums = MeanMetrics()
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
        # `load_search_data` refuses too few images for a step: alphas would stay as they are.
        assert phase == "warmup" or sums.count("arch_loss"), "a joint epoch without an architecture step"
        return sums.means() | {"num_weight_steps": sums.count("train_loss")}, train_count_LO

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

    def _evaluate_path(self, path: list[int]) -> float:
        """Held-out accuracy of a path, at the depth that the supernet is trained at."""
        return self._evaluate(partial(self.supernet, choices=path))

    # Shared warm-ups

    @property
    def num_shared_epochs(self) -> int:
        """Those of warm-up."""
        return self.task.config.num_warmup_epochs

    @staticmethod
    def shared_hash(config: SearchConfig, data_fingerprint: str, device_type: str) -> str:
        """See `SharingMethod`."""
        return warmup_hash(config, data_fingerprint, device_type)

    def _shared_result(
        self, epoch: int, metrics: dict[str, float], train_count_LO: NDArray[np.int64], kernels: str | None
    ) -> EpochResult:
        return self._result(epoch, "warmup", metrics, train_count_LO, kernels=kernels)
