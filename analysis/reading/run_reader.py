"""One run as a record, with its files."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from analysis.reading import tags
from analysis.reading.run import IMAGES, Run
from analysis.reading.run_store import RunStore
from analysis.reading.values import parse_value
from nas.foundation.errors import UserError, first_line
from nas.foundation.escaping import escape_unprintable
from nas.foundation.validation import read_json
from nas.search.health import HealthCheck, checks_from_json
from nas.search.records import METRIC_NAMES, SUPERNET_METRIC_NAMES, Trajectory
from nas.space.architecture import Architecture

_NUM_DOWNLOADS = 8
NUM_DIGITS_OF_IMAGES = 12
"""Of the fingerprint of its images, in the config of a run."""

_FIELDS_ADDED_TO_SEARCHES = {
    "method": "tf_nas",
    "kernels": "auto",
    "final_temperature": "None",
    "derivation": "argmax",
    "arch_lr_schedule": "constant",
    "latency_multiplier_lr": "0.0005",
    "num_evaluations": "100",
    "evaluation_sample": "mutual_information",
}
"""Config fields that older searches lack, and the values that they ran with."""

Content = TypeVar("Content")


def make_run(
    run_id: str,
    name: str,
    status: str,
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    run_tags: Mapping[str, str],
    *,
    start_time_ms: int = 0,
    artifact_uri: str = "",
    trajectory: Trajectory | None = None,
) -> Run:
    """Returns a run with the values of its params.

    Args:
        params: the flat config, as text.
    """
    kind = run_tags.get(tags.KIND, "other")
    config = {name: parse_value(text) for name, text in _complete(kind, params).items()}
    if kind in ("search", "train"):
        config[IMAGES] = run_tags.get(tags.DATA_FINGERPRINT, tags.UNKNOWN)[:NUM_DIGITS_OF_IMAGES]
    return Run(
        run_id=run_id,
        name=escape_unprintable(name),
        status=status,
        kind=kind,
        config=config,
        metrics=dict(metrics),
        tags=dict(run_tags),
        failure=run_tags.get(tags.FAILURE),
        start_time_ms=start_time_ms,
        artifact_uri=artifact_uri,
        trajectory=trajectory,
    )


def _complete(kind: str, params: Mapping[str, str]) -> dict[str, str]:
    """Params as a run would have them today."""
    if kind != "search":
        return dict(params)
    completed = _FIELDS_ADDED_TO_SEARCHES | dict(params)
    # Older runs call `bi_random` by its short name.
    if completed.get("sampling") == "bi":
        completed["sampling"] = "bi_random"
    return completed


def read_files(runs: Sequence[Run], store: RunStore) -> list[Run]:
    """Returns the runs with their epochs, trajectories, derived networks and health checks.

    Raises:
        UserError: the store cannot be read, or refuses a file that is damaged.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(_NUM_DOWNLOADS if any(map(store.is_slow, runs)) else 1) as pool,
    ):
        return list(pool.map(lambda run: _with_files(run, store, Path(folder) / run.run_id), runs))


def _with_files(run: Run, store: RunStore, folder: Path) -> Run:
    problems: list[str] = []

    def load(name: str, parse: Callable[[Path], Content], *, may_be_missing: bool = False) -> Content | None:
        path = store.fetch(run, name, folder)
        if path is None:
            if not may_be_missing:
                problems.append(f"{name} is missing")
            return None
        try:
            return _parse(path, parse)
        except UserError as error:
            if store.refuses_damage:
                raise UserError(f"{store.name}: run {run.name}: {error}") from None
            problems.append(str(error))
            return None

    trajectory = load("trajectory.npz", Trajectory.load)
    architecture = load("architecture.json", Architecture.load)
    health = load("health.json", _read_health, may_be_missing=True)
    evaluations = load("evaluations.csv", _read_evaluations, may_be_missing=True)
    epochs = load("metrics.csv", _read_epochs)
    if epochs is not None and (lacking := _lacking_metrics(epochs, trajectory)):
        problems.append(f"metrics.csv lacks {', '.join(lacking)}")
        epochs = epochs.assign(**dict.fromkeys(lacking, np.nan))
    problem = f"{'; '.join(problems)} (written by version {run.tag(tags.VERSION)})" if problems else None
    return replace(
        run,
        epochs=epochs,
        trajectory=trajectory,
        architecture=architecture,
        health=health,
        evaluations=evaluations,
        problem=problem,
    )


def check_file(path: Path) -> None:
    """Checks that a file of a search can be read, known by its name; any other file can.

    Raises:
        UserError: it cannot.
    """
    parsers: dict[str, Callable[[Path], object]] = {
        "trajectory.npz": Trajectory.load,
        "architecture.json": Architecture.load,
        "health.json": _read_health,
        "evaluations.csv": _read_evaluations,
        "metrics.csv": _read_epochs,
    }
    if path.name in parsers:
        _parse(path, parsers[path.name])


def _parse(path: Path, parse: Callable[[Path], Content]) -> Content:
    try:
        return parse(path)
    except (UserError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path.name}: {first_line(error).removeprefix(f'{path}: ')}") from None


def _read_epochs(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col="epoch")


def _read_evaluations(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, index_col="evaluation")
    numbers = ["epoch", "latency_ms", "val_accuracy", "predicted_score"]
    missing = {*numbers, "architecture"} - set(table)
    if missing:
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}")
    for name in numbers:
        table[name] = pd.to_numeric(table[name])
    networks = [Architecture.model_validate_json(text) for text in table["architecture"]]
    table["architecture"] = pd.Series(networks, table.index)
    return table


def _read_health(path: Path) -> tuple[HealthCheck, ...]:
    return tuple(checks_from_json(read_json(path, "the health checks of a search"), path))


def _lacking_metrics(epochs: pd.DataFrame, trajectory: Trajectory | None) -> list[str]:
    has_supernet = trajectory is not None and trajectory.alpha_ELO is not None
    expected = (*METRIC_NAMES, *(SUPERNET_METRIC_NAMES if has_supernet else ()))
    return [name for name in expected if name not in epochs]
