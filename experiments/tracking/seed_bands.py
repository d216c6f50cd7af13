"""Seed bands: one run per setting with mean, lowest and highest value over seeds, for MLflow's own charts.

They are made from the searches or trainings of a launch and are no results of their own: readers find these
by kind, and this kind is `aggregate`.
"""

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import CellFolder
from experiments.cells.origin import origin_tags
from experiments.tracking.notes import NOTE_TAG, sign
from experiments.tracking.saved_views import SavedView, save_view
from experiments.tracking.store_access import open_store, reaching, search_runs
from experiments.tracking.tracked_cells import SUPERSEDED_TAG
from nas.foundation.identity import fingerprint

KIND = "aggregate"
_SETTING_TAG = "tfnas.setting"
"""Identifies a setting: all that determines a result, except the seed."""

_CONTENT_TAG = "tfnas.content"
_SEED_IN_NAME = re.compile(r"[st]\d+")
_MAX_METRICS_PER_BATCH = 1000


@dataclass(frozen=True)
class SeedBand:
    """A setting over its seeds.

    Attributes:
        setting: identifies it.
        kind: of its cells.
        factors: fields in which the settings of the grid differ, with their values.
        metrics: of each epoch that all seeds have: name, value, epoch and time.
    """

    setting: str
    name: str
    kind: str
    factors: Mapping[str, str]
    params: Mapping[str, str]
    seeds: Sequence[int]
    metrics: Sequence[Metric]

    @classmethod
    def of(cls, cells: Sequence[Cell], folders: Sequence[CellFolder]) -> Self:
        """The band of cells that differ in the seed alone, from their journals."""
        cell = cells[0]
        seeds = sorted(one.config.seed for one in cells)
        tokens = [token for token in cell.name.split("-") if not _SEED_IN_NAME.fullmatch(token)]
        return cls(
            setting=setting_of(cell),
            name=f"{'-'.join(tokens)} ({len(seeds)} seeds)",
            kind=cell.kind,
            factors={name: str(value) for name, value in cell.factors.items() if name != "seed"},
            params={name: value for name, value in cell.params.items() if name != "seed"},
            seeds=seeds,
            metrics=list(_band(folders)),
        )

    @cached_property
    def content(self) -> str:
        """Identifies everything that its run shows."""
        values = [[metric.key, metric.value, metric.step] for metric in self.metrics]
        return fingerprint({"name": self.name, "seeds": list(self.seeds), "metrics": values})

    @property
    def tags(self) -> dict[str, str]:
        """Tags of its run, from the beginning."""
        note = (
            f"Mean, lowest (`_low`) and highest (`_high`) value of each metric over seeds "
            f"{', '.join(map(str, self.seeds))}. Each launch of the grid updates it, unless it was deleted."
        )
        return {
            "tfnas.kind": KIND,
            "tfnas.aggregate_of": self.kind,
            _SETTING_TAG: self.setting,
            _CONTENT_TAG: self.content,
            NOTE_TAG: sign([note]),
            **origin_tags("tfnas launch"),
            **{f"factor.{name}": value for name, value in self.factors.items()},
        }


def setting_of(cell: Cell) -> str:
    """Equal for cells that differ in the seed alone."""
    identity = cell.identity
    config = {name: value for name, value in identity["config"].items() if name != "seed"}
    return fingerprint({"kind": cell.kind, **identity, "config": config})[:32]


def seed_bands(finished: Sequence[Cell], folders: Mapping[str, CellFolder]) -> list[SeedBand]:
    """The bands of the settings that have several seeds.

    Args:
        folders: of the cells, by hash. A setting with a cell whose folder is gone is left out.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in finished:
        groups.setdefault(setting_of(cell), []).append(cell)
    return [
        SeedBand.of(cells, [folders[cell.hash] for cell in cells])
        for cells in groups.values()
        if len(cells) > 1 and all(folders[cell.hash].journal.is_finished for cell in cells)
    ]


def deliver_bands(uri: str, experiment_id: str, launch: str | None, bands: Sequence[SeedBand]) -> None:
    """Makes the runs of bands what they are to be: one each, except those that somebody deleted.

    Args:
        launch: the run that is to hold them.

    Raises:
        UserError: the tracking server is unreachable; the next launch delivers them.
    """
    if not bands:
        return
    client = open_store(uri)
    with reaching(uri):
        runs: dict[str, list[Run]] = {}
        for run in search_runs(client, experiment_id, f"tags.`tfnas.kind` = '{KIND}'", with_deleted=True):
            runs.setdefault(run.data.tags.get(_SETTING_TAG, ""), []).append(run)
        for band in bands:
            _deliver(client, experiment_id, launch, band, runs.get(band.setting, []))
    save_view(uri, experiment_id, _view(bands))


def _deliver(
    client: MlflowClient, experiment_id: str, launch: str | None, band: SeedBand, runs: Sequence[Run]
) -> None:
    deleted = [run for run in runs if run.info.lifecycle_stage == "deleted"]
    if any(SUPERSEDED_TAG not in run.data.tags for run in deleted):
        return
    present = [run for run in runs if run not in deleted]
    current = [run for run in present if _is_current(run, band)]
    # Metrics cannot be replaced: a band with other values is another run.
    run_id = current[0].info.run_id if current else _create(client, experiment_id, launch, band)
    for run in present:
        if run.info.run_id != run_id:
            client.set_tag(run.info.run_id, SUPERSEDED_TAG, run_id)
            client.delete_run(run.info.run_id)


def _is_current(run: Run, band: SeedBand) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get(_CONTENT_TAG) == band.content


def _create(client: MlflowClient, experiment_id: str, launch: str | None, band: SeedBand) -> str:
    tags = band.tags | ({"mlflow.parentRunId": launch} if launch else {})
    run_id = str(client.create_run(experiment_id, tags=tags, run_name=band.name).info.run_id)
    params = [Param(*item) for item in band.params.items()]
    seeds = RunTag("tfnas.seeds", ", ".join(map(str, band.seeds)))
    client.log_batch(run_id, params=params, tags=[seeds], synchronous=True)
    for start in range(0, len(band.metrics), _MAX_METRICS_PER_BATCH):
        batch = band.metrics[start : start + _MAX_METRICS_PER_BATCH]
        client.log_batch(run_id, metrics=batch, synchronous=True)
    # Last, so that FINISHED means complete.
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _band(folders: Sequence[CellFolder]) -> Iterator[Metric]:
    all_epochs = [folder.journal.epochs for folder in folders]
    for epoch in sorted(set.intersection(*(set(epochs) for epochs in all_epochs))):
        events = [epochs[epoch] for epochs in all_epochs]
        time_ms = max(event.time_ms for event in events)
        for name in events[0].metrics:
            values = [event.metrics.get(name, math.nan) for event in events]
            if all(map(math.isfinite, values)):
                yield Metric(name, statistics.fmean(values), time_ms, epoch)
                yield Metric(f"{name}_low", min(values), time_ms, epoch)
                yield Metric(f"{name}_high", max(values), time_ms, epoch)


def _view(bands: Sequence[SeedBand]) -> SavedView:
    of_cells = SavedView.of_cells(bands[0].kind, list(bands[0].factors))
    return SavedView(
        KIND,
        "Settings, over seeds",
        [name for name in of_cells.params if name != "seed"],
        of_cells.metrics,
        [(name, f"{name}_low", f"{name}_high") for (name,) in of_cells.charts],
    )
