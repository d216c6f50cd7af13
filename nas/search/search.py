"""One whole differentiable search: warm-up, joint training, elasticity-scaling, derivation.

Shapes: L searchable layers, O candidate operators, P phases of elasticity-scaling.

Source: TF-NAS, search procedure and implementation details.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from nas.config import SearchConfig
from nas.foundation.device import determinism, keep_freed_memory
from nas.foundation.device import resolve_device as resolve_device
from nas.foundation.errors import DivergedError as DivergedError
from nas.foundation.errors import UserError
from nas.latency.compatibility import Hardware, check_table
from nas.latency.elasticity import ScalingReport, elasticity_scaling
from nas.latency.measurement import measure_table
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.records import EpochRecord, Phase
from nas.search.search_state import SearchState
from nas.space.macro_space import get_space
from nas.supernet.objectives import check_latencies
from nas.supernet.sampling import sample_first_path, sample_second_path


def run_search(
    config: SearchConfig,
    *,
    table: LatencyTable | None = None,
    checkpoint_dir: Path | None = None,
    warmups_dir: Path | None = None,
) -> Iterator[EpochRecord]:
    """Runs a search and yields a record after each epoch.

    Args:
        table: lookup table; where not given, the one that `config.latency_table` says.
        checkpoint_dir: folder for a checkpoint after each epoch. Where it holds one already, the
            search goes on from there, and first yields the records of the epochs done before.
        warmups_dir: folder of warm-ups that searches share, also while they run at the same time:
            each warm-up epoch is computed once, by one of the searches that have it in common.

    Raises:
        UserError: table, target, data or checkpoint do not fit the config.
        DivergedError: a loss or a parameter became infinite or NaN.
    """
    search = Search(config, table or load_or_measure_table(config))
    if checkpoint_dir is not None:
        search.load(checkpoint_dir)
    yield from search.records
    while search.epoch < config.num_epochs:
        with determinism(config.deterministic):
            if warmups_dir is not None and search.epoch < config.num_warmup_epochs:
                records = search.share_epochs(warmups_dir)
            else:
                records = [search.run_epoch()]
        if checkpoint_dir is not None:
            search.save(checkpoint_dir)
        yield from records


class Search(SearchState):
    """A search, and the step from one epoch to the next.

    Raises:
        UserError: see `check_fit`; or the images are missing or too few.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable) -> None:
        check_fit(config, table, Hardware.of(resolve_device(config.device)))
        keep_freed_memory()
        super().__init__(config, table)

    def run_epoch(self) -> EpochRecord:
        """Runs the next epoch and appends its record.

        Raises:
            DivergedError: a loss or a parameter is no longer finite.
        """
        start_s = time.perf_counter()
        # Here, since another search of this process may have set its own number.
        torch.set_num_threads(self.config.num_threads)
        epoch = self.epoch + 1
        phase: Phase = "warmup" if epoch <= self.config.num_warmup_epochs else "joint"
        if self.config.reset_optimizers_each_epoch:
            self._steps.reset_optimizers()
        weight_lr = self._steps.set_weight_lr(epoch)
        sums, train_count_LO = self._train(phase, self._temperature(epoch))
        metrics = sums.means()
        self._check_finite(epoch, metrics)
        scaling = self._scale_widths() if phase == "joint" and self.config.elasticity else None
        metrics |= {
            "val_accuracy": self._evaluate(),
            "weight_lr": weight_lr,
            "epoch_seconds": time.perf_counter() - start_s,
            "num_skipped_images": float(self.data.num_skipped_images),
            **self._peak_memory(),
        }
        return self._add_record(phase, metrics, train_count_LO, scaling)

    def share_epochs(self, warmups_dir: Path) -> list[EpochRecord]:
        """Takes up the warm-up epochs that other searches have computed, or else computes the next.

        One of the searches that have this warm-up in common computes an epoch, while the others wait.

        Args:
            warmups_dir: holds a folder for each warm-up.

        Returns:
            The records of the epochs that are new here.
        """
        num_done = self.epoch
        directory = warmups_dir / self.warmup_identity[:32]
        directory.mkdir(parents=True, exist_ok=True)
        # The system takes the lock from a process that dies.
        with FileLock(directory / ".lock"):
            self.take_up_warmup(directory)
            if self.epoch == num_done:
                self.run_epoch()
                self.save_warmup(directory)
        return self.records[num_done:]

    # Steps

    def _train(self, phase: Phase, temperature: float) -> tuple["_Sums", NDArray[np.int64]]:
        sums = _Sums()
        train_count_LO = np.zeros(tuple(self.supernet.alpha.shape), dtype=np.int64)
        arch_batches = self.data.arch_batches(self._generators["arch_batches"])
        log_alpha_LO = self.supernet.log_alpha().detach().cpu()
        weight_batches = self.data.weight_batches(self._generators["weight_batches"])
        for step, (images_BCHW, labels_B) in enumerate(weight_batches, start=1):
            paths = self._sample_paths(phase, log_alpha_LO)
            for path in paths:
                train_count_LO[np.arange(len(path)), path] += 1
            images_BCHW, labels_B = self._to_device(images_BCHW), self._to_device(labels_B)
            first = self._steps.weight_step(images_BCHW, labels_B, paths)[0]
            sums.add("train_loss", first.loss)
            sums.add("train_accuracy", first.accuracy)
            if phase == "joint" and step % self.config.weight_steps_per_arch_step == 0:
                images_BCHW, labels_B = next(arch_batches)
                images_BCHW, labels_B = self._to_device(images_BCHW), self._to_device(labels_B)
                loss = self._steps.arch_step(images_BCHW, labels_B, temperature, self._generators["paths"])
                sums.add("arch_loss", loss)
                log_alpha_LO = self.supernet.log_alpha().detach().cpu()
        return sums, train_count_LO

    def _sample_paths(self, phase: Phase, log_alpha_LO: Tensor) -> list[list[int]]:
        generator = self._generators["paths"]
        first_L = sample_first_path(log_alpha_LO, generator)
        sampling = "single" if phase == "warmup" else self.config.sampling
        second_L = sample_second_path(log_alpha_LO, first_L, sampling, generator)
        return [first_L.tolist()] if second_L is None else [first_L.tolist(), second_L.tolist()]

    def _scale_widths(self) -> ScalingReport:
        report = elasticity_scaling(
            self.supernet.derive(),
            self.table,
            self.config.target_latency_ms,
            refine=self.config.refine_widths,
        )
        self.supernet.set_derived_widths(report.architecture, self._steps.weight_optimizer)
        return report

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Accuracy of the leading operators, at the depth that the supernet is trained at."""
        path = self.supernet.log_alpha().argmax(-1).tolist()
        num_correct = torch.zeros((), device=self.device)
        num_images = 0
        for images_BCHW, labels_B in self.data.val_batches():
            with self._steps.autocast():
                logits_BK = self.supernet(self._to_device(images_BCHW), path)
            num_correct += (logits_BK.argmax(-1) == self._to_device(labels_B)).sum()
            num_images += len(labels_B)
        return float(num_correct) / num_images

    # Bookkeeping

    def _peak_memory(self) -> dict[str, float]:
        """The most that tensors took on the GPU since the last call; nothing on the CPU."""
        if self.device.type != "cuda":
            return {}
        peak_bytes = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"peak_gpu_memory_bytes": float(peak_bytes)}

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

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


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


def check_fit(config: SearchConfig, table: LatencyTable, hardware: Hardware) -> None:
    """Checks, before anything is trained, that a config and a lookup table make a search.

    Raises:
        UserError: the table is of another space or device, no network of the space can have the
            target latency, or the objective is undefined at the table's latencies.
    """
    check_table(table, get_space(config.space), hardware)
    low_ms, high_ms = reachable_interval_ms(table)
    target_ms = config.target_latency_ms
    if not low_ms <= target_ms <= high_ms:
        raise UserError(
            f"target_latency_ms: {target_ms:g} is out of reach: networks of '{config.space}' take "
            f"{low_ms:.4g} to {high_ms:.4g} ms by the lookup table; choose a target between "
            "(in a YAML file it may be a share of the interval, like 40%)"
        )
    check_latencies(config.objective, low_ms, target_ms)


def load_or_measure_table(config: SearchConfig) -> LatencyTable:
    """The lookup table that a config says: read from its file, or measured now."""
    if config.latency_table != "measure":
        return LatencyTable.load(config.latency_table)
    return measure_table(
        get_space(config.space),
        device=resolve_device(config.device),
        num_threads=config.num_threads,
        batch_size=config.latency_batch_size,
    )
