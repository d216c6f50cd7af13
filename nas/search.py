"""One whole differentiable search: warm-up, joint training, elasticity-scaling, derivation.

Shapes: L searchable layers, O candidate operators, P phases of elasticity-scaling.

Source: TF-NAS, search procedure and implementation details.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.checkpoint import load_newest_checkpoint, records_from_state, records_to_state, save_checkpoint
from nas.config import SearchConfig
from nas.data import SearchData, load_search_data
from nas.device import determinism, keep_freed_memory
from nas.device import resolve_device as resolve_device
from nas.elasticity import ScalingReport, elasticity_scaling
from nas.errors import DivergedError as DivergedError
from nas.errors import UserError
from nas.identity import config_hash
from nas.latency import LatencyTable
from nas.latency.compatibility import Hardware, check_table
from nas.latency.measure import measure_table
from nas.latency.table import reachable_interval_ms
from nas.objective import check_latencies
from nas.records import EpochRecord, Phase
from nas.redundancy import has_other_encodings
from nas.sampling import sample_first_path, sample_second_path, temperature_at
from nas.space import Space, get_space
from nas.steps import SearchSteps
from nas.supernet import Supernet


def run_search(
    config: SearchConfig, *, table: LatencyTable | None = None, checkpoint_dir: Path | None = None
) -> Iterator[EpochRecord]:
    """Runs a search and yields a record after each epoch.

    Args:
        table: lookup table; where not given, the one that `config.latency_table` says.
        checkpoint_dir: folder for a checkpoint after each epoch. Where it holds one already, the
            search goes on from there, and first yields the records of the epochs done before.

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
            record = search.run_epoch()
        if checkpoint_dir is not None:
            search.save(checkpoint_dir)
        yield record


class Search:
    """The state of a search between two epochs, and the step from one to the next.

    Attributes:
        records: one for each epoch that is done.
        supernet: weights, alpha, beta and widths.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable) -> None:
        self.config = config
        self.table = table
        self.space: Space = get_space(config.space)
        self.device = resolve_device(config.device)
        check_fit(config, table, Hardware.of(self.device))
        torch.set_num_threads(config.num_threads)
        keep_freed_memory()
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

    def run_epoch(self) -> EpochRecord:
        """Runs the next epoch and appends its record.

        Raises:
            DivergedError: a loss or a parameter is no longer finite.
        """
        start_s = time.perf_counter()
        epoch = self.epoch + 1
        phase: Phase = "warmup" if epoch <= self.config.num_warmup_epochs else "joint"
        if self.config.reset_optimizers_each_epoch:
            self._steps.reset_optimizers()
        weight_lr = self._steps.set_weight_lr(epoch)
        temperature = temperature_at(
            epoch,
            num_warmup_epochs=self.config.num_warmup_epochs,
            initial_temperature=self.config.initial_temperature,
            temperature_decay=self.config.temperature_decay,
        )
        sums, train_count_LO = self._train(phase, temperature)
        metrics = sums.means()
        self._check_finite(epoch, metrics)
        scaling = self._scale_widths() if phase == "joint" and self.config.elasticity else None
        metrics |= self._derived_metrics() | {
            "val_accuracy": self._evaluate(),
            "temperature": temperature,
            "weight_lr": weight_lr,
            "epoch_seconds": time.perf_counter() - start_s,
            "num_skipped_images": float(self.data.num_skipped_images),
            **self._peak_memory(),
        }
        record = EpochRecord(
            epoch, phase, metrics, self.supernet.derive(), self._arrays(train_count_LO, scaling)
        )
        self.records.append(record)
        return record

    # Steps

    def _train(self, phase: Phase, temperature: float) -> tuple["_Sums", np.ndarray[Any, Any]]:
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

    def _derived_metrics(self) -> dict[str, float]:
        latency_ms = self.table.latency_ms(self.supernet.derive())
        log_alpha_LO = self.supernet.log_alpha().detach()
        terms_LO = torch.where(log_alpha_LO.isinf(), 0, log_alpha_LO.exp() * log_alpha_LO)
        max_entropy_L = self.supernet.has_candidate_LO.sum(-1).log()
        return {
            "expected_latency_ms": float(self.supernet.expected_latency_ms(self.table).detach()),
            "derived_latency_ms": latency_ms,
            "latency_error_percent": (latency_ms / self.config.target_latency_ms - 1) * 100,
            "derived_depth": float(self.supernet.derive().depth),
            "alpha_entropy": float((-terms_LO.sum(-1) / max_entropy_L).mean()),
            "redundant_encoding": float(self._is_redundant()),
        }

    def _peak_memory(self) -> dict[str, float]:
        """The most that tensors took on the GPU since the last call; nothing on the CPU."""
        if self.device.type != "cuda":
            return {}
        peak_bytes = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"peak_gpu_memory_bytes": float(peak_bytes)}

    def _is_redundant(self) -> bool:
        is_skip = self.config.depth == "skip"
        return is_skip and has_other_encodings(self.space, self.supernet.derived_ops())

    def _arrays(
        self, train_count_LO: np.ndarray[Any, Any], scaling: ScalingReport | None
    ) -> dict[str, np.ndarray[Any, Any]]:
        num_phases = 1 + len(self.space.stages) + self.config.refine_widths
        scaling_ms_P = np.full(num_phases, np.nan)
        if scaling is not None:
            scaling_ms_P[: len(scaling.latencies_ms)] = scaling.latencies_ms
        return {
            "alpha_ELO": self.supernet.log_alpha().detach().cpu().numpy(),
            "beta_ESD": self.supernet.log_beta().detach().cpu().numpy(),
            "mid_channels_ELO": np.array(self.supernet.widths(), dtype=np.int64),
            "derived_op_EL": np.array(self.supernet.derived_ops(), dtype=np.int64),
            "train_count_ELO": train_count_LO,
            "scaling_ms_EP": scaling_ms_P,
            "redundant_E": np.array(self._is_redundant()),
        }

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
            "generators": {name: generator.get_state() for name, generator in self._generators.items()},
            "records": records_to_state(self.records),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a state of `state_dict`."""
        self.supernet.load_state_dict(state["supernet"])
        self.supernet.set_widths(state["widths"])
        self._steps.load_state_dict(state["optimizers"])
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name])
        self.records = records_from_state(state["records"])

    def _identity(self) -> str:
        return config_hash(self.config, self.table.fingerprint)


_STREAMS = ("weight_batches", "arch_batches", "paths")


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
