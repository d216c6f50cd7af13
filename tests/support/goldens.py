"""Golden trajectories: what tiny searches and trainings come to, as numbers in `tests/nas/goldens.json`.

`make goldens` remakes them. They hold the results versions: whoever changes the numbers raises
`RESULTS_VERSION` (of searches or of trainings) and remakes them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nas.config import TrainConfig
from nas.search import search_identity
from nas.search.records import EpochRecord
from nas.search.search import run_search
from nas.supernet.objectives import OBJECTIVES
from nas.supernet.sampling import SAMPLINGS
from nas.training import training
from nas.training.training import run_training
from tests.support.tiny import (
    TINY,
    full_depth_architecture,
    make_config,
    make_dense_table,
    register_tiny_spaces,
)

PATH = Path(__file__).parents[1] / "nas" / "goldens.json"

Numbers = dict[str, list[Any]]
"""A list with an entry per epoch, for each quantity."""

MIN_GAP = 0.01
"""Smallest lead of a leading operator or depth where widths hang on it, in log-probability.

Rounding moves alphas by up to 0.002 here, and is not to decide which network is derived.
"""

MAX_ROUNDING = 5e-4
"""Largest difference of a log-probability between the kernels: a tenth of what the test allows.

With some seeds a ReLU is so near its kink that rounding decides its gradient.
"""

MAX_SEED = 100


def search_cases() -> dict[str, dict[str, Any]]:
    """The fields of each search: every sampling in both depth spaces, every objective, widths that move."""
    fixed = {"elasticity": False}
    cases: dict[str, dict[str, Any]] = {
        f"{sampling}, {depth}": {"sampling": sampling, "depth": depth, **fixed}
        for sampling in SAMPLINGS
        for depth in ("sink", "skip")
    }
    cases |= {objective: {"objective": objective, **fixed} for objective in OBJECTIVES}
    # At the published rate, a few steps show nothing of it.
    cases["lagrangian"]["latency_multiplier_lr"] = 1.0
    for depth in ("sink", "skip"):
        # More steps, after which alphas are apart.
        more = {"max_train_images": 140, "num_epochs": 2}
        cases[f"elastic, {depth}"] = {"depth": depth, "refine_widths": True, **more}
    # A sample that no rounding of a Gaussian process can change.
    evaluating = {"num_evaluations": 20, "evaluation_sample": "random"}
    return cases | {method: {"method": method, **evaluating} for method in ("random", "gp_nas")}


def run_search_case(fields: dict[str, Any], kernels: str) -> list[EpochRecord]:
    """A few epochs, the first of them warm-up."""
    base = {"num_epochs": 3, "weight_lr": 0.02, "arch_lr": 0.1, "weight_steps_per_arch_step": 1}
    config = make_config(**base | fields, kernels=kernels)
    return list(run_search(config, table=make_dense_table(TINY)))


def numbers_of_search(records: list[EpochRecord]) -> Numbers:
    """Losses, latencies, alphas and betas; infinite ones, of candidates that a layer lacks, as None."""
    names = ("train_loss", "arch_loss", "expected_latency_ms")
    numbers: Numbers = {name: [record.metrics.get(name) for record in records] for name in names}
    for name in ("alpha_ELO", "beta_ESD"):
        if name in records[0].arrays:
            numbers[name] = [_as_lists(record.arrays[name]) for record in records]
    architectures = [record.architecture for record in records]
    if evaluations := [each for record in records for each in record.evaluations]:
        # Without the last round, which a predictor may choose.
        numbers["evaluated"] = [each.val_accuracy for each in evaluations[:-10]]
        architectures = [each.architecture for each in evaluations[:-10]]
    numbers["mid_channels"] = [[width for *_, width in architecture.layers] for architecture in architectures]
    return numbers


def training_cases() -> dict[str, dict[str, Any]]:
    """The fields of each training: the protocol, and what it can be switched to."""
    return {
        "protocol": {},
        "rates per step": {"lr_schedule": "per_step", "num_warmup_epochs": 1},
        "all images": {"val_fraction": 0},
        "averaged weights": {"ema_decay": 0.5},
        "random crops": {"augmentation": "paper", "lr": 0.005},
    }


def run_training_case(fields: dict[str, Any]) -> Numbers:
    """Three epochs of a small derived network."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "architecture.json"
        full_depth_architecture(TINY, TINY.ops[5]).save(path)
        base = {
            "architecture": str(path),
            "max_train_images": 60,
            "augmentation": "crop_flip",
            "batch_size": 16,
            "num_epochs": 3,
            "num_warmup_epochs": 2,
            "lr": 0.02,
            "device": "cpu",
        }
        records = list(run_training(TrainConfig.model_validate(base | fields)))
    return {name: [record.metrics.get(name) for record in records] for name in ("train_loss", "val_loss")}


def _as_lists(array: np.ndarray) -> Any:
    rounded = np.round(array.astype(np.float64), 5).tolist()
    return [[value if np.isfinite(value) else None for value in row] for row in rounded]


def _is_decided(records: list[EpochRecord]) -> bool:
    """Whether every choice of a derived network has a lead that rounding cannot take."""
    joint = [record for record in records if record.phase == "joint"]
    return all(_lead(record.arrays[name]) > MIN_GAP for record in joint for name in ("alpha_ELO", "beta_ESD"))


def _is_same_to_rounding(one: EpochRecord, other: EpochRecord) -> bool:
    return all(
        np.allclose(one.arrays[name], other.arrays[name], rtol=0, atol=MAX_ROUNDING)
        for name in {"alpha_ELO", "beta_ESD"} & one.arrays.keys()
    )


def _lead(scores: np.ndarray) -> float:
    if scores.size == 0:
        return np.inf
    ordered = np.sort(scores, axis=-1)
    gaps = ordered[:, -1] - ordered[:, -2]
    return float(gaps[np.isfinite(gaps)].min(initial=np.inf))


def _make_searches() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, fields in search_cases().items():
        for seed in range(MAX_SEED):
            records, others = (
                run_search_case(fields | {"seed": seed}, kernels) for kernels in ("torch", "compiled")
            )
            is_decided = fields.get("elasticity") is False or _is_decided(records)
            if is_decided and all(map(_is_same_to_rounding, records, others)):
                yield name, {"seed": seed, "numbers": numbers_of_search(records)}
                break
        else:
            raise AssertionError(f"{name}: no seed below {MAX_SEED} withstands rounding")


def main() -> None:
    """Writes `tests/nas/goldens.json`."""
    register_tiny_spaces()
    content = {
        "search": {"results_version": search_identity.RESULTS_VERSION, "cases": dict(_make_searches())},
        "training": {
            "results_version": training.RESULTS_VERSION,
            "cases": {name: run_training_case(fields) for name, fields in training_cases().items()},
        },
    }
    PATH.write_text(json.dumps(content, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    print(f"wrote {PATH.name}; raise RESULTS_VERSION where numbers changed")


if __name__ == "__main__":
    main()
