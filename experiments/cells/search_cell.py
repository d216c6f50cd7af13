"""SearchCell: one search of a grid."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cells.cell import COMMON_COST_FIELDS, Cell
from experiments.cells.epoch_cost import NUM_TIMED_BATCHES, EpochCost
from experiments.cells.image_survey import ImageSurvey, listed_counts, survey
from nas.config import SearchConfig
from nas.data.image_lists import Listing
from nas.data.image_source import list_images
from nas.data.search_data import load_search_data
from nas.foundation.identity import fingerprint
from nas.foundation.world import ALONE, World
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.health import HealthCheck, check_health, foresee_health
from nas.search.method import SharingMethod
from nas.search.methods import METHODS
from nas.search.records import EpochRecord, Trajectory
from nas.search.search import count_images, run_search
from nas.search.search_identity import RESULTS_VERSION, search_identity, warmup_hash
from nas.space.macro_space import get_space
from nas.supernet.sampling import SAMPLINGS, no_second_path

if TYPE_CHECKING:
    from experiments.cells.cell_folder import CellFolder


@dataclass(frozen=True)
class SearchCell(Cell[SearchConfig, LatencyTable]):
    """One search.

    Attributes:
        name: unique within its grid, for instance `bi_random-s0-sink-T4` in a grid of samplings and seeds.
        config: `latency_table` is the path of a file.
        table_fingerprint: identifies that table.
    """

    table_fingerprint: str

    kind = "search"
    config_type = SearchConfig
    results_version = RESULTS_VERSION
    noun = "search"
    plural = "searches"
    subject_heading = "target within reach"
    result_heading = "latency"
    has_health = True
    cost_fields = COMMON_COST_FIELDS | {
        *("method", "space", "depth", "elasticity", "arch_fraction", "arch_list"),
        "weight_steps_per_arch_step",
        *("deterministic", "kernels"),
    }

    @classmethod
    def run(
        cls,
        config: SearchConfig,
        given: LatencyTable,
        folder: "CellFolder",
        *,
        listing: Listing | None = None,
        warmups_dir: Path | None = None,
        world: World = ALONE,
    ) -> Iterator[EpochRecord]:
        """See `Cell`."""
        folder.write_config(config)
        records: list[EpochRecord] = []
        for record in run_search(
            config,
            table=given,
            checkpoint_dir=folder.checkpoints,
            warmups_dir=warmups_dir,
            listing=listing,
        ):
            records.append(record)
            # After every epoch, for those who watch.
            trajectory = Trajectory.of(config.space, config.as_searched().depth, records)
            trajectory.save(folder.artifacts / "trajectory.npz")
            yield record
        # The kernels that computed it, in place of `auto`.
        folder.write_config(config.model_copy(update={"kernels": records[-1].kernels or config.kernels}))
        _write_metrics(records, folder.artifacts / "metrics.csv")
        records[-1].architecture.save(folder.artifacts / "architecture.json")
        given.save(folder.artifacts / "latency_table.json")
        _write_evaluations(records, folder.artifacts / "evaluations.csv")
        folder.write_health(check_health(config, records))

    @classmethod
    def list_images(cls, config: SearchConfig) -> Listing:
        """See `Cell`; a search never looks for test images."""
        return list_images(config, ["train"])

    @classmethod
    def look_at_images(cls, config: SearchConfig, resolution: int, listing: Listing) -> ImageSurvey:
        """See `Cell`; finding broken images takes as long as an epoch, so the trial does that."""
        if config.skip_broken_images:
            counted = count_images(config, listing)
            return survey(config, listing, counted.fingerprint, listed_counts(listing), config.space)
        data = load_search_data(config, resolution, listing)
        counts = {
            "images for weight steps": data.num_weight_images,
            "for architecture steps": data.num_arch_images,
        }
        return survey(config, listing, data.fingerprint, counts, config.space)

    @classmethod
    def count_weight_steps(cls, config: SearchConfig, listing: Listing) -> int:
        """See `Cell`."""
        return count_images(config, listing).num_weight_images // config.batch_size

    @classmethod
    def time_epochs(cls, config: SearchConfig, given: LatencyTable, listing: Listing) -> EpochCost:
        """See `Cell`."""
        data = count_images(config, listing)
        probe = _probe(config, data.num_arch_images / (data.num_weight_images + data.num_arch_images))
        probe_data = load_search_data(probe, cls.resolution(config), listing)
        scale = data.num_weight_images / probe_data.num_weight_images
        # Twice: the first run also pays for PyTorch's one-time setup.
        for _ in range(2):
            seconds = {
                str(record.phase): record.metrics["epoch_seconds"] * scale
                for record in run_search(probe, table=given, listing=listing)
            }
        return EpochCost(seconds)

    @classmethod
    def resolution(cls, config: SearchConfig) -> int:
        """That of the space."""
        return get_space(config.space).resolution

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result."""
        return search_identity(self.config, self.table_fingerprint, self.data_fingerprint)

    @property
    def effect(self) -> str:
        """See `Cell`; the target, for one, may matter to the reported error alone."""
        identity, unused = self.identity, self.config.unused_fields()
        fields = {name: value for name, value in identity["config"].items() if name not in unused}
        return fingerprint(identity | {"config": fields})

    @property
    def phases(self) -> Sequence[str]:
        """See `Cell`."""
        return self.config.phases

    @cached_property
    def warmup(self) -> str:
        """Hash of everything that its warm-up epochs depend on."""
        method = METHODS[self.config.method]
        hash_of = method.shared_hash if issubclass(method, SharingMethod) else warmup_hash
        return hash_of(self.config, self.data_fingerprint, self.config.device)

    @property
    def cost_key(self) -> str:
        """See `Cell`; a second path costs the same however it is sampled."""
        has_second_path = SAMPLINGS[self.config.sampling] is not no_second_path
        return fingerprint({"fields": super().cost_key, "has_second_path": has_second_path})

    @property
    def input_name(self) -> str:
        """Fingerprint of the lookup table."""
        return self.table_fingerprint

    def load_input(self) -> LatencyTable:
        """The lookup table."""
        return LatencyTable.load(self.config.latency_table)

    @property
    def subject(self) -> str:
        """The target, and how far up the reachable interval it is."""
        low_ms, high_ms = reachable_interval_ms(self.load_input())
        target_ms = self.config.target_latency_ms
        share = (target_ms - low_ms) / (high_ms - low_ms)
        return f"{target_ms:.4g} ms, {share:.0%} of {low_ms:.3g} to {high_ms:.3g} ms"

    def result(self, metrics: Mapping[str, float]) -> str:
        """The derived network's latency and the target."""
        latency_ms = metrics.get("derived_latency_ms")
        shown = "-" if latency_ms is None else f"{latency_ms:.3g}"
        return f"{shown} of {self.config.target_latency_ms:.3g} ms"

    def foresee(self, num_weight_steps: int) -> list[HealthCheck]:
        """See `Cell`; what follows from its fields and the number of steps."""
        return foresee_health(self.config, num_weight_steps)

    @property
    def tags(self) -> dict[str, str]:
        """The lookup table."""
        return {"tfnas.table_fingerprint": self.table_fingerprint}


def _write_metrics(records: list[EpochRecord], path: Path) -> None:
    """Writes the metrics of all epochs into one file: MLflow returns one metric of one run at a time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        names = dict.fromkeys(name for record in records for name in record.metrics)
        writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": record.epoch, **record.metrics} for record in records)


def _write_evaluations(records: list[EpochRecord], path: Path) -> None:
    """Writes a table of all networks that were evaluated; methods that evaluate none have no such file."""
    rows = [
        {
            "evaluation": each.number,
            "epoch": record.epoch,
            "latency_ms": each.latency_ms,
            "val_accuracy": each.val_accuracy,
            "predicted_score": each.predicted_score,
            "depth": each.architecture.depth,
            "architecture": each.architecture.model_dump_json(exclude_none=True),
        }
        for record in records
        for each in record.evaluations
    ]
    if rows:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _probe(config: SearchConfig, arch_share: float) -> SearchConfig:
    """The same search, over two epochs of a few batches.

    Args:
        arch_share: share of the images for architecture steps.
    """
    # More than one step's worth, since the split rounds in each class.
    num_batches = max(NUM_TIMED_BATCHES, math.ceil(1.2 * config.weight_steps_per_arch_step))
    smaller_share = min(arch_share, 1 - arch_share)
    needed = max(
        math.ceil(num_batches * config.batch_size / (1 - arch_share)),
        math.ceil(1.2 * config.batch_size / smaller_share),
    )
    return config.model_copy(
        update={
            "max_train_images": min(needed, config.max_train_images or needed),
            "num_epochs": 2,
            "num_warmup_epochs": 1,
            "num_evaluations": 20,
        }
    )
