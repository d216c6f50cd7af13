"""Made-up searches in a real MLflow store, as a launch leaves them.

Their courses are caricatures with known tendencies: single-path searches lock in early, skip spaces move
their depth, fixed widths miss the target. Nothing here is a result.
"""

import csv
import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from scipy.special import log_softmax

from experiments.cells.search_cell import SearchCell
from experiments.launching.grid_record import GridRecord
from experiments.tracking.tracked_cells import REGISTRATION_FILE
from nas.config import SearchConfig
from nas.foundation.identity import fingerprint
from nas.latency.entry import LatencyEntry, space_keys
from nas.latency.table import LatencyTable, Provenance
from nas.search.health import HealthCheck, checks_to_json
from nas.search.records import METRIC_NAMES, Trajectory
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import Space, get_space
from nas.space.redundancy import has_other_encodings

SOURCE, LIBRARIES = "c0de0000c0de", "torch 2.14.1, numpy 2.3.5"
IMAGES, OTHER_IMAGES = "1a9e5" * 12, "07e51" * 12


def make_table(space_name: str = "micro", scale: float = 1.0) -> LatencyTable:
    """A table in which latency grows with width, kernel and resolution."""
    entries = []
    for key, (low, high) in space_keys(get_space(space_name)).items():
        widths = np.unique(np.linspace(low, high, 5).astype(int))
        cost = scale * key.resolution**2 * (key.in_channels + key.out_channels + key.kernel_size**2) * 1e-7
        latency_ms = 0.02 + cost * widths + (0.02 if key.se_channels else 0.0)
        entries.append(
            LatencyEntry(key=key, widths=tuple(widths.tolist()), latency_ms=tuple(latency_ms.tolist()))
        )
    provenance = Provenance(source="synthetic", device_type="cpu", device_name="none")
    return LatencyTable(space=space_name, base_ms=0.1, provenance=provenance, entries=tuple(entries))


@dataclass
class Search:
    """A made-up search: the content of its run in MLflow."""

    config: SearchConfig
    trajectory: Trajectory
    metrics: list[dict[str, float]]
    architecture: Architecture
    table: LatencyTable

    @property
    def health(self) -> list[HealthCheck]:
        """Checks by hand: single-path searches do not move their alphas, fixed widths miss the target."""
        error_percent = float(self.metrics[-1]["latency_error_percent"])
        is_met, is_bi = abs(error_percent) <= 1, self.config.sampling != "single"
        latency = HealthCheck(
            "latency", is_met, f"it is {error_percent:.1f} % off", "" if is_met else "relax"
        )
        alphas = HealthCheck("alphas", is_bi, "alphas moved <a bit>", "" if is_bi else "raise arch_lr")
        return [latency] if self.trajectory.alpha_ELO is None else [latency, alphas]

    def without_supernet(self) -> "Search":
        """The same as a method leaves it that has no supernet."""
        trajectory = Trajectory(
            space=self.trajectory.space,
            depth=self.trajectory.depth,
            epoch_E=self.trajectory.epoch_E,
            is_joint_E=self.trajectory.is_joint_E,
            derived_op_EL=self.trajectory.derived_op_EL,
        )
        metrics = [{name: row[name] for name in METRIC_NAMES} for row in self.metrics]
        return replace(self, trajectory=trajectory, metrics=metrics)


def make_config(table: LatencyTable, **fields: Any) -> SearchConfig:
    """A config with few epochs."""
    return SearchConfig(**{"space": table.space, "num_epochs": 16, "num_warmup_epochs": 3} | fields)


def make_search(table: LatencyTable, **fields: Any) -> Search:
    """A search whose course has the tendencies that its switches are said to have."""
    config = make_config(table, **fields)
    space = get_space(config.space)
    rng = np.random.default_rng(
        [
            config.seed,
            config.sampling != "single",
            config.depth == "sink",
            int(100 * config.target_latency_ms),
        ]
    )
    alpha_ELO = _alphas(config, space, rng)
    beta_ESD = _betas(config, space, rng)
    derived_EL = np.stack(
        [_derive(space, alpha_LO, beta_SD) for alpha_LO, beta_SD in zip(alpha_ELO, beta_ESD, strict=True)]
    )
    mid_ELO, scaling_EP, latency_E = _widths(config, space, derived_EL, table, rng)
    num_epochs = config.num_epochs
    is_joint_E = np.arange(num_epochs) >= config.num_warmup_epochs
    trajectory = Trajectory(
        space=config.space,
        depth=config.depth,
        epoch_E=np.arange(1, num_epochs + 1),
        is_joint_E=is_joint_E,
        alpha_ELO=alpha_ELO.astype(np.float32),
        beta_ESD=beta_ESD.astype(np.float32),
        mid_channels_ELO=mid_ELO,
        derived_op_EL=derived_EL,
        train_count_ELO=_train_counts(config, len(space.ops), alpha_ELO, rng),
        scaling_ms_EP=scaling_EP,
        redundant_E=np.array([has_other_encodings(space, row.tolist()) for row in derived_EL])
        & (config.depth == "skip"),
    )
    ramp_E = 1 - np.exp(-np.arange(1, num_epochs + 1) / 5)
    bonus = 0.02 * (config.sampling != "single") + 0.01 * (config.depth == "sink")
    metrics = [
        {
            "train_loss": 2.3 - 1.7 * ramp_E[e] + rng.normal(0, 0.02),
            "train_accuracy": 0.1 + 0.7 * ramp_E[e] + rng.normal(0, 0.01),
            **({"arch_loss": 2.2 - 1.5 * ramp_E[e] + rng.normal(0, 0.02)} if is_joint_E[e] else {}),
            "val_accuracy": 0.1 + (0.66 + bonus) * ramp_E[e] + rng.normal(0, 0.008),
            "expected_latency_ms": latency_E[e] * 1.05,
            "derived_latency_ms": latency_E[e],
            "latency_error_percent": 100 * (latency_E[e] / config.target_latency_ms - 1),
            "derived_depth": float((derived_EL[e] >= 0).sum()),
            "alpha_entropy": float(-(np.exp(alpha_ELO[e]) * np.nan_to_num(alpha_ELO[e])).sum(-1).mean()),
            "temperature": 5.0 * 0.96 ** max(0, e - config.num_warmup_epochs),
            "weight_lr": config.weight_lr * (1 + np.cos(np.pi * e / num_epochs)) / 2,
            "epoch_seconds": 3.0,
            "redundant_encoding": float(trajectory.redundant_E[e]),
            "num_skipped_images": 0.0,
        }
        for e in range(num_epochs)
    ]
    architecture = _architecture(space, derived_EL[-1], mid_ELO[-1])
    return Search(config, trajectory, metrics, architecture, table)


def _alphas(config: SearchConfig, space: Space, rng: np.random.Generator) -> np.ndarray:
    num_ops = len(space.ops) + (config.depth == "skip")
    has_op_LO = np.ones((len(space.layers), num_ops), bool)
    if config.depth == "skip":
        has_op_LO[:, -1] = [layer.keeps_shape for layer in space.layers]
    taste_O = np.random.default_rng(config.seed).normal(0, 0.03, num_ops)
    logits_LO = np.zeros(has_op_LO.shape)
    rows = []
    for epoch in range(config.num_epochs):
        if epoch >= config.num_warmup_epochs:
            step_LO = rng.normal(0, 0.12, logits_LO.shape) + taste_O
            if config.sampling == "single":
                step_LO = 0.5 * step_LO + 0.15 * (logits_LO == logits_LO.max(-1, keepdims=True))
            if config.depth == "skip":
                step_LO[:, -1] += 0.25 * np.cos(epoch + np.arange(len(step_LO)))
            logits_LO = logits_LO + step_LO
        rows.append(log_softmax(np.where(has_op_LO, logits_LO, -np.inf), axis=-1))
    return np.stack(rows)


def _betas(config: SearchConfig, space: Space, rng: np.random.Generator) -> np.ndarray:
    num_stages, max_depth = len(space.stages), max(stage.num_layers for stage in space.stages)
    if config.depth == "skip":
        return np.zeros((config.num_epochs, num_stages, 0))
    possible_SD = np.zeros((num_stages, max_depth + 1), bool)
    for stage, spec in enumerate(space.stages):
        possible_SD[stage, space.min_depth(stage) : spec.num_layers + 1] = True
    logits_SD = np.zeros(possible_SD.shape)
    rows = []
    for epoch in range(config.num_epochs):
        if epoch >= config.num_warmup_epochs:
            progress = (epoch - config.num_warmup_epochs) / (config.num_epochs - config.num_warmup_epochs)
            pull = 0.1 * (2 * progress - 0.6)
            logits_SD = logits_SD + rng.normal(0, 0.02, logits_SD.shape) + pull * np.arange(max_depth + 1)
        rows.append(log_softmax(np.where(possible_SD, logits_SD, -np.inf), axis=-1))
    return np.stack(rows)


def _derive(space: Space, alpha_LO: np.ndarray, beta_SD: np.ndarray) -> np.ndarray:
    op_L = alpha_LO.argmax(-1)
    if not beta_SD.shape[1]:
        return np.where(op_L == len(space.ops), -1, op_L)
    depth_S = beta_SD.argmax(-1)
    return np.array(
        [
            op if layer.index < depth_S[layer.stage] else -1
            for layer, op in zip(space.layers, op_L, strict=True)
        ]
    )


def _architecture(space: Space, derived_L: np.ndarray, mid_LO: np.ndarray) -> Architecture:
    stages: list[tuple[LayerChoice, ...]] = []
    for stage in range(len(space.stages)):
        rows = [row for row, layer in enumerate(space.layers) if layer.stage == stage and derived_L[row] >= 0]
        places = space.stage_layers(stage)
        choices = []
        for place, row in zip(places, rows, strict=False):
            op = space.ops[derived_L[row]]
            low, high = op.width_interval(place.in_channels)
            width = int(np.clip(mid_LO[row, derived_L[row]], low, high))
            choices.append(LayerChoice(op=op.name, mid_channels=width))
        stages.append(tuple(choices))
    return Architecture(space=space.name, stages=tuple(stages))


def _widths(
    config: SearchConfig,
    space: Space,
    derived_EL: np.ndarray,
    table: LatencyTable,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_own, num_stages = len(space.ops), len(space.stages)
    start_LO = np.zeros((len(space.layers), num_own + (config.depth == "skip")), np.int64)
    for row, layer in enumerate(space.layers):
        start_LO[row, :num_own] = [op.initial_width(layer.in_channels) for op in space.ops]
    mid_ELO = np.repeat(start_LO[None], len(derived_EL), axis=0)
    scaling_EP = np.full((len(derived_EL), 1 + num_stages), np.nan)
    latency_E = np.zeros(len(derived_EL))
    for epoch, derived_L in enumerate(derived_EL):
        before_ms = table.latency_ms(_architecture(space, derived_L, mid_ELO[epoch]))
        latency_E[epoch] = before_ms
        if config.elasticity and epoch >= config.num_warmup_epochs:
            target = config.target_latency_ms
            gaps = np.sort(rng.exponential([0.03, *[0.01 / (s + 1) for s in range(num_stages - 1)]]))[::-1]
            gaps[-1] = min(gaps[-1], 0.004)
            scaling_EP[epoch] = [before_ms, *(target * (1 - gaps))]
            latency_E[epoch] = scaling_EP[epoch, -1]
            mid_ELO[epoch, :, :num_own] = np.maximum(
                start_LO[:, :num_own] * rng.uniform(0.9, 1.1, (len(space.layers), 1)), 1
            ).astype(int)
    return mid_ELO, scaling_EP, latency_E


def _train_counts(
    config: SearchConfig, num_ops: int, alpha_ELO: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    steps = 60
    counts_ELO = np.zeros(alpha_ELO.shape, np.int64)
    for epoch, layer in itertools.product(range(alpha_ELO.shape[0]), range(alpha_ELO.shape[1])):
        probability_O = np.exp(alpha_ELO[epoch, layer])
        counts_ELO[epoch, layer] = rng.multinomial(steps, probability_O / probability_O.sum())
        if config.sampling != "single" and epoch >= config.num_warmup_epochs:
            counts_ELO[epoch, layer, :num_ops] += rng.multinomial(steps, np.full(num_ops, 1 / num_ops))
    return counts_ELO


def grid(**factors: Sequence[Any]) -> list[dict[str, Any]]:
    """The cells of a grid."""
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


class _MadeUpCell(SearchCell):
    results_version = 2


def _cell(
    config: SearchConfig, factors: Sequence[str], table: LatencyTable, images: str = IMAGES
) -> SearchCell:
    named = {factor: getattr(config, factor) for factor in factors}
    name = "-".join(_short(factor, value) for factor, value in named.items())
    return _MadeUpCell(name, named, config, images, {}, table.fingerprint)


class Store:
    """An MLflow SQLite store in a launch's folder, written run by run."""

    def __init__(self, out_dir: Path, experiment: str, table: LatencyTable | None = None) -> None:
        self.out_dir = out_dir
        out_dir.mkdir(parents=True, exist_ok=True)
        self.tracking_uri = f"sqlite:///{out_dir}/mlflow.db"
        self.client = MlflowClient(self.tracking_uri)
        self.table = table or make_table()
        self.experiment = experiment
        self.experiment_id = self.client.create_experiment(
            experiment, artifact_location=(out_dir / "mlartifacts").as_uri()
        )
        parent = self.client.create_run(self.experiment_id, run_name="launch", tags={"tfnas.kind": "launch"})
        self.parent_id = parent.info.run_id
        self.client.set_terminated(self.parent_id)

    def add_grid(self, base: dict[str, Any], cells: Iterable[dict[str, Any]], **options: Any) -> list[str]:
        """Adds one finished run per cell."""
        return [self.add(base | cell, list(cell), **options) for cell in cells]

    def add(
        self,
        fields: dict[str, Any],
        factors: Sequence[str],
        *,
        status: str = "FINISHED",
        failure: str | None = None,
        table: LatencyTable | None = None,
        code_version: str = SOURCE,
        results_version: str = "2",
        libraries: str = LIBRARIES,
        older: bool = False,
        method: str = "tf_nas",
        images: str = IMAGES,
        params: Mapping[str, str | None] | None = None,
    ) -> str:
        """Adds one run. A failed or running one has a few metrics and no artifacts.

        Args:
            older: whether it lacks metrics.csv, health.json, an array of its trajectory, and the tags of what
                made it.
            method: any other than `tf_nas` leaves no trace of a supernet.
            images: their fingerprint.
            params: replace params of the config; None removes one.
        """
        search = make_search(table or self.table, **fields)
        if method != "tf_nas":
            search = search.without_supernet()
        config = {name: str(value) for name, value in search.config.model_dump().items()}
        config |= {"method": method} | dict(params or {})
        cell = _cell(search.config, factors, search.table, images)
        name, cell_hash = cell.name, cell.hash
        if (method, results_version, older) != ("tf_nas", "2", False):
            cell_hash = fingerprint({"cell": cell_hash, "of": [method, results_version, older]})[:32]
        tags = {
            "tfnas.cell": cell_hash,
            "tfnas.kind": "search",
            "tfnas.factors": json.dumps(list(factors)),
            "tfnas.data_fingerprint": images,
            "tfnas.table_fingerprint": search.table.fingerprint,
            "tfnas.version": "0.0.1" if older else "0.1.0",
            "mlflow.parentRunId": self.parent_id,
            **({} if older else _makers(code_version, results_version, libraries)),
            **{f"factor.{factor}": str(fields[factor]) for factor in factors},
            **({"tfnas.failure": failure} if failure else {}),
        }
        run_id = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        rows = search.metrics if status == "FINISHED" else search.metrics[:4]
        metrics = [
            Metric(key, value, 1_700_000_000_000 + step, step)
            for step, row in enumerate(rows, start=1)
            for key, value in row.items()
        ]
        logged = [Param(key, value) for key, value in config.items() if value is not None]
        for start in range(0, len(metrics), 900):
            self.client.log_batch(run_id, metrics=metrics[start : start + 900])
        self.client.log_batch(run_id, params=logged, tags=[RunTag("tfnas.logged", "yes")])
        if status == "FINISHED":
            self._log_artifacts(run_id, search, older)
        if status != "RUNNING":
            self.client.set_terminated(run_id, status=status)
        return run_id

    def add_training(
        self,
        architecture: str,
        search_run_id: str | None = None,
        *,
        seed: int = 0,
        num_epochs: int = 5,
        code_version: str = SOURCE,
        results_version: str = "2",
    ) -> str:
        """Adds a finished run that trained a network, that of a search if one is given."""
        name = f"train-{architecture}-s{seed}"
        tags = {"tfnas.kind": "train", "tfnas.cell": name}
        tags |= _makers(code_version, results_version, LIBRARIES)
        tags |= {"tfnas.search_run": search_run_id} if search_run_id else {}
        run_id = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        params = {"architecture": architecture, "seed": seed, "num_epochs": num_epochs}
        self.client.log_batch(
            run_id,
            metrics=[Metric("test_accuracy", 0.8, 0, 0)],
            params=[Param(name, str(value)) for name, value in params.items()],
        )
        self.client.set_terminated(run_id)
        return run_id

    def register(
        self,
        base: dict[str, Any],
        cells: Sequence[dict[str, Any]],
        *,
        claims: Mapping[str, Any] = {},
        file: str = "grid.yaml",
        images: Sequence[str] = (IMAGES,),
        time_ms: int | None = None,
    ) -> str:
        """Registers a grid as a launch does; returns the run of the launch.

        Args:
            base: fields of all cells; they and the cells are as for `add_grid`.
            claims: JSON by name.
            images: fingerprints; each cell is on each of them.
            time_ms: when the launch started; None for now.
        """
        made = [
            _cell(make_config(self.table, **base | cell), list(cell), self.table, own)
            for own in images
            for cell in cells
        ]
        return self._register(GridRecord.of(made, claims, file), time_ms)

    def register_trainings(self, cells: Sequence[str], *, file: str = "train.yaml") -> str:
        """The same for trainings, by the cells in the tags of their runs."""
        content = {
            "kind": "train",
            "file": file,
            "results_version": "2",
            "claims": {},
            "base": {},
            "cells": {cell: {"name": cell, "fields": {}, "images": "", "tags": {}} for cell in cells},
        }
        return self._register(GridRecord(content))

    def _register(self, record: GridRecord, time_ms: int | None = None) -> str:
        tags = {"tfnas.kind": "launch"}
        run_id = self.client.create_run(self.experiment_id, time_ms, tags, "launch").info.run_id
        self.client.log_text(run_id, record.text, REGISTRATION_FILE)
        self.client.log_batch(run_id, tags=[RunTag(*item) for item in record.tags.items()])
        self.client.set_terminated(run_id)
        return run_id

    def _log_artifacts(self, run_id: str, search: Search, older: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if older:
                arrays = {
                    name: array for name, array in vars(search.trajectory).items() if name != "derived_op_EL"
                }
                np.savez_compressed(folder / "trajectory.npz", allow_pickle=False, **arrays)
            else:
                search.trajectory.save(folder / "trajectory.npz")
                with open(folder / "metrics.csv", "w", newline="") as file:
                    writer = csv.DictWriter(file, ["epoch", *search.metrics[-1]])
                    writer.writeheader()
                    writer.writerows({"epoch": e, **row} for e, row in enumerate(search.metrics, start=1))
                (folder / "health.json").write_text(json.dumps(checks_to_json(search.health)))
            search.architecture.save(folder / "architecture.json")
            search.table.save(folder / "latency_table.json")
            (folder / "config.yaml").write_text("synthetic: true\n")
            self.client.log_artifacts(run_id, str(folder))


def _makers(code_version: str, results_version: str, libraries: str) -> dict[str, str]:
    return {
        "tfnas.code_version": code_version,
        "tfnas.results_version": results_version,
        "tfnas.libraries": libraries,
        "tfnas.device": "cpu",
    }


def _short(factor: str, value: Any) -> str:
    prefix = {"target_latency_ms": "T", "seed": "s", "latency_weight": "w", "elasticity": "e"}
    return f"{prefix.get(factor, '')}{value}"
