"""Trajectories, runs and experiments made by hand, in the space `paper` (2 + 3 + 4 + 4 + 4 + 1 layers)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.reading.experiment import Experiment
from analysis.reading.registration import Registration
from analysis.reading.run import ComparisonBasis, Run
from nas.search.records import Trajectory

NUM_LAYERS = 18


def trajectory(num_epochs: int, num_warmup: int = 0, *, depth: str = "sink", **arrays: Any) -> Trajectory:
    """A search in which nothing happens, except for the given arrays."""
    num_ops = 8 + (depth == "skip")
    nothing = {
        "alpha_ELO": np.full((num_epochs, NUM_LAYERS, num_ops), -np.log(num_ops), np.float32),
        "beta_ESD": np.zeros((num_epochs, 6, 5 if depth == "sink" else 0), np.float32),
        "mid_channels_ELO": np.full((num_epochs, NUM_LAYERS, num_ops), 48),
        "derived_op_EL": np.zeros((num_epochs, NUM_LAYERS), np.int64),
        "train_count_ELO": np.zeros((num_epochs, NUM_LAYERS, num_ops), np.int64),
        "scaling_ms_EP": np.full((num_epochs, 7), np.nan),
        "redundant_E": np.zeros(num_epochs, bool),
    }
    return Trajectory(
        space="paper",
        depth=depth,
        epoch_E=np.arange(1, num_epochs + 1),
        is_joint_E=np.arange(num_epochs) >= num_warmup,
        **(nothing | arrays),
    )


def alphas(leaders: Sequence[int | None], probability: float = 0.5, num_ops: int = 8) -> np.ndarray:
    """Log-probabilities in which each epoch has one leader in all layers (None: all are equal)."""
    rows = []
    for leader in leaders:
        row = np.full(num_ops, 1 / num_ops)
        if leader is not None:
            row[:] = (1 - probability) / (num_ops - 1)
            row[leader] = probability
        rows.append(np.tile(np.log(row), (NUM_LAYERS, 1)))
    return np.array(rows, np.float32)


def kept(*stages: Sequence[int]) -> np.ndarray:
    """Derived operators of one epoch: 0 where a layer is kept, -1 where not."""
    flags = [flag for stage in stages for flag in stage]
    return np.where(np.array(flags), 0, -1)


def run(name: str = "run", metrics: dict[str, float] | None = None, **config: Any) -> Run:
    """A finished run of that config, without files; its cell is known by its id."""
    run_id = f"{abs(hash((name, *sorted(config.items(), key=str)))):032x}"[:32]
    return Run(
        run_id=run_id,
        name=name,
        status="FINISHED",
        kind="search",
        config=config,
        metrics=metrics or {},
        tags={"tfnas.cell": run_id},
        failure=None,
        start_time_ms=0,
        artifact_uri="",
    )


def training(
    architecture: str,
    search: Run | None = None,
    seed: int = 0,
    session: str = "noon",
    lr: float = 0.1,
    val_fraction: float = 0.1,
    **metrics: float,
) -> Run:
    """A finished training of a network, that of a search if one is given."""
    config = {"architecture": architecture, "seed": seed, "lr": lr, "val_fraction": val_fraction}
    made = run(f"train-{architecture}-s{seed}", metrics, **config)
    tags = {"tfnas.latency_session": session, "tfnas.latency_conditions": "batch size 1"}
    tags |= {"tfnas.search_run": search.run_id} if search else {}
    return replace(made, kind="train", tags=tags)


def registration(
    runs: Sequence[Run], claims: Mapping[str, Mapping[str, Any]] = {}, time_ms: int = 0
) -> Registration:
    """What a launch of these runs registers."""
    return Registration(
        run_id="1a2b3c4d",
        time_ms=time_ms,
        last_time_ms=time_ms,
        file="grid.yaml",
        kind="search",
        cells={run.tags["tfnas.cell"]: run.config for run in runs},
        names={run.tags["tfnas.cell"]: run.name for run in runs},
        claims=claims,
    )


def experiment_of(
    runs: Sequence[Run],
    training: Sequence[Run] = (),
    *,
    missing: Sequence[Run] = (),
    registrations: Sequence[Registration] = (),
) -> Experiment:
    """An experiment of these finished runs; what was registered last is compared."""
    return Experiment(
        name="by hand",
        experiment_id="1",
        tracking_uri="",
        basis=ComparisonBasis("table", "1"),
        runs=tuple(runs),
        missing=tuple(missing),
        training=tuple(training),
        notices=(),
        registered=registrations[-1] if registrations else None,
        registrations=tuple(registrations),
    )
