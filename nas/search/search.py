"""One whole search: epochs of a method, their records, and checkpoints between them."""

import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from filelock import FileLock

from nas.config import SearchConfig
from nas.data.image_lists import Listing
from nas.data.image_source import list_images
from nas.data.search_data import SearchData, load_search_data
from nas.foundation.checkpoint import load_newest_checkpoint, newest_epoch, save_checkpoint
from nas.foundation.device import (
    check_repeatable,
    determinism,
    gpu_settings,
    keep_freed_memory,
    resolve_device,
)
from nas.foundation.errors import InputWarning, UserError
from nas.foundation.identity import fingerprint
from nas.latency.compatibility import Hardware, check_table
from nas.latency.elasticity import latency_error_percent
from nas.latency.measurement import measure_table
from nas.latency.spot_check import spot_check
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.health import check_health
from nas.search.method import EpochResult, SearchTask, SharingMethod
from nas.search.methods import METHODS
from nas.search.record_states import records_from_state, records_to_state
from nas.search.records import EpochRecord
from nas.search.search_identity import search_identity
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space


def run_search(
    config: SearchConfig,
    *,
    table: LatencyTable | None = None,
    checkpoint_dir: Path | None = None,
    warmups_dir: Path | None = None,
    listing: Listing | None = None,
    even_if_busy: bool = False,
) -> Iterator[EpochRecord]:
    """Runs a search and yields a record after each epoch.

    Args:
        table: lookup table; where not given, the one that `config.latency_table` names.
        checkpoint_dir: folder for a checkpoint after each epoch. Where it holds one already, the
            search resumes from there, and first yields the records of the epochs done before.
        warmups_dir: folder of warm-ups that searches share, also while they run at the same time:
            each warm-up epoch is computed once, by one of the searches that have it in common.
        listing: the image files, from `list_images`, for many searches of the same images; None to list
            them now.
        even_if_busy: whether to measure a lookup table though other processes use the machine.

    Raises:
        UserError: table, target, data or checkpoint do not fit the config, or the machine is too busy to
            measure a table.
        DivergedError: a loss or a parameter became infinite or NaN.
    """
    if table is None:
        # The config is as its author wrote it; a launch warns by itself, and hands over the table.
        _warn_of_unused(config)
        if config.latency_table == "measure":
            # What takes minutes comes after what takes a moment.
            count_images(config, listing)
            table = measure_table_of(config, even_if_busy)
        else:
            table = LatencyTable.load(config.latency_table)
        search = Search(config, table, listing)
        _warn_of_doubt(config, table)
    else:
        search = Search(config, table, listing)
    with closing(search.task.data.pool):
        if checkpoint_dir is not None:
            search.load(checkpoint_dir)
        yield from search.records
        while search.epoch < len(config.phases):
            with determinism(config.deterministic), gpu_settings(search.task.device):
                method = search.method
                if (
                    warmups_dir is not None
                    and isinstance(method, SharingMethod)
                    and search.epoch < method.num_shared_epochs
                ):
                    records = search.share_epochs(method, warmups_dir)
                else:
                    records = [search.run_epoch()]
            if checkpoint_dir is not None:
                search.save(checkpoint_dir)
            yield from records


class Search:
    """A search between two epochs, and the step from one epoch to the next.

    Attributes:
        method: all that the next epoch depends on.
        records: one for each epoch that is done.

    Raises:
        UserError: see `check_fit`; or the images are missing or too few.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable, listing: Listing | None = None) -> None:
        config = config.as_searched()
        device = resolve_device(config.device)
        check_fit(config, table, Hardware.of(device))
        if config.deterministic:
            check_repeatable(device)
        keep_freed_memory()
        self.task = SearchTask.of(config, table, listing)
        self.method = METHODS[config.method](self.task)
        self.records: list[EpochRecord] = []

    @property
    def epoch(self) -> int:
        """Number of epochs that are done."""
        return len(self.records)

    def run_epoch(self) -> EpochRecord:
        """Runs the next epoch and appends its record.

        Raises:
            DivergedError: a loss or a parameter is no longer finite.
            UserError: the GPU has not enough memory.
        """
        start_s = time.perf_counter()
        # Here, since another search of this process may have set its own number.
        torch.set_num_threads(self.task.config.num_threads)
        try:
            result = self.method.run_epoch(self.epoch + 1)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"kernels: the GPU's memory is not enough for '{self.task.config.kernels}' ({error}); set "
                "kernels: torch, which needs less, or recompute, which needs least, or a smaller batch_size"
            ) from error
        own_metrics = {
            "epoch_seconds": time.perf_counter() - start_s,
            "num_skipped_images": float(self.task.data.num_skipped_images),
            **self._peak_memory(),
        }
        record = self._add_record(result, own_metrics)
        if self.epoch == len(self.task.config.phases):
            record.metrics["chance_accuracy"] = 1 / self.task.data.num_classes
            checks = check_health(self.task.config, self.records)
            record.metrics["num_health_findings"] = float(sum(not check.is_healthy for check in checks))
        return record

    def share_epochs(self, method: SharingMethod, warmups_dir: Path) -> list[EpochRecord]:
        """Takes the shared epochs that other searches have computed, or else computes the next one.

        One of the searches that have these epochs in common computes one, while the others wait.

        Args:
            method: of this search.
            warmups_dir: holds a folder for each warm-up.

        Returns:
            The records of the epochs that are new here.
        """
        num_done = self.epoch
        directory = warmups_dir / method.shared_identity[:32]
        directory.mkdir(parents=True, exist_ok=True)
        # The system takes the lock from a process that dies.
        with FileLock(directory / ".lock"):
            self._load_shared(method, directory)
            if self.epoch == num_done:
                self.run_epoch()
                state = method.shared_state_dict(self.records)
                save_checkpoint(directory, self.epoch, state, method.shared_identity)
        return self.records[num_done:]

    def save(self, directory: Path) -> None:
        """Writes a checkpoint of all that the next epoch depends on."""
        state = self.method.state_dict() | {"records": records_to_state(self.records)}
        save_checkpoint(directory, self.epoch, state, self._identity())

    def load(self, directory: Path) -> None:
        """Resumes from the newest intact checkpoint of a folder, if there is one.

        Raises:
            UserError: the checkpoint is of another search.
        """
        state = load_newest_checkpoint(directory, self._identity())
        if state is not None:
            self.records = records_from_state(state.pop("records"))
            self.method.load_state_dict(state)

    def _load_shared(self, method: SharingMethod, directory: Path) -> None:
        """Takes the epochs that a folder has more than are done here, if any."""
        if newest_epoch(directory) <= self.epoch:
            return
        state = load_newest_checkpoint(directory, method.shared_identity)
        if state is None or len(state["epochs"]) <= self.epoch:
            return
        for result in method.load_shared_state_dict(state, self.epoch):
            self._add_record(result, {}, is_shared=True)

    def _add_record(
        self, result: EpochResult, own_metrics: dict[str, float], *, is_shared: bool = False
    ) -> EpochRecord:
        record = EpochRecord(
            epoch=self.epoch + 1,
            phase=result.phase,
            metrics=result.metrics | self._latency_metrics(result.architecture) | own_metrics,
            architecture=result.architecture,
            arrays=result.arrays,
            is_shared=is_shared,
            kernels=result.kernels,
            evaluations=result.evaluations,
        )
        self.records.append(record)
        return record

    def _latency_metrics(self, architecture: Architecture) -> dict[str, float]:
        latency_ms = self.task.table.latency_ms(architecture)
        return {
            "derived_latency_ms": latency_ms,
            "latency_error_percent": latency_error_percent(latency_ms, self.task.config.target_latency_ms),
            "derived_depth": float(architecture.depth),
        }

    def _identity(self) -> str:
        task = self.task
        return fingerprint(search_identity(task.config, task.table.fingerprint, task.data.fingerprint))

    def _peak_memory(self) -> dict[str, float]:
        """The most that tensors took on the GPU since the last call; nothing on the CPU."""
        device = self.task.device
        if device.type != "cuda":
            return {}
        peak_bytes = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return {"peak_gpu_memory_bytes": float(peak_bytes)}


def check_fit(config: SearchConfig, table: LatencyTable, hardware: Hardware) -> None:
    """Checks, before anything is trained, that a config and a lookup table make a search.

    Raises:
        UserError: the table is of another space or device, no network of the space can have the
            target latency, or the method asks for something else.
    """
    check_table(table, get_space(config.space), hardware)
    low_ms, high_ms = reachable_interval_ms(table)
    target_ms = config.target_latency_ms
    if not low_ms <= target_ms <= high_ms:
        raise UserError(
            f"target_latency_ms: {target_ms:g} is out of reach: networks of '{config.space}' take "
            f"{low_ms:.4g} to {high_ms:.4g} ms by the lookup table; choose a target in between "
            "(in a YAML file it may be a share of the interval, like 40%)"
        )
    METHODS[config.method].check(config, table)


def _warn_of_unused(config: SearchConfig) -> None:
    """Warns of fields that are not at their default and have no effect in this combination."""
    fields = type(config).model_fields
    for name in config.ineffective_fields():
        if getattr(config, name) != fields[name].default:
            warnings.warn(f"{name}: has no effect on this search", InputWarning, stacklevel=3)


def _warn_of_doubt(config: SearchConfig, table: LatencyTable) -> None:
    """Warns if a table may be wrong: by what it records, or by a few networks that are measured now."""
    check = spot_check(table, config.device)
    for doubt in (table.provenance.doubt, check and check.doubt):
        if doubt:
            warnings.warn(f"latency_table: {config.latency_table}: {doubt}", InputWarning, stacklevel=3)


def count_images(config: SearchConfig, listing: Listing | None = None) -> SearchData:
    """The images of a search, before broken files are left out; decodes none, so it takes a moment.

    Args:
        listing: the image files; None to list them now.

    Raises:
        UserError: images are missing, or fewer than a search needs.
    """
    if listing is None:
        listing = list_images(config, ["train"])
    counted = config.as_searched().model_copy(update={"skip_broken_images": False})
    return load_search_data(counted, get_space(config.space).resolution, listing)


def measure_table_of(config: SearchConfig, even_if_busy: bool = False) -> LatencyTable:
    """Measures the lookup table of a search, on the device that it runs on.

    Args:
        even_if_busy: whether to measure though other processes use the machine.

    Raises:
        UserError: there is no such device, or the machine is busy.
    """
    return measure_table(
        get_space(config.space),
        device=resolve_device(config.device),
        num_threads=config.num_threads,
        batch_size=config.latency_batch_size,
        even_if_busy=even_if_busy,
    )
