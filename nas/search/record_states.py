"""Epoch records in a checkpoint, which holds arrays as tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nas.search.records import EpochRecord, evaluations_from_state, evaluations_to_state
from nas.space.architecture import Architecture


def records_to_state(records: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Epoch records as what a checkpoint may hold."""
    return [
        {
            "epoch": record.epoch,
            "phase": record.phase,
            "metrics": dict(record.metrics),
            "architecture": record.architecture.model_dump(mode="json"),
            "arrays": {name: torch.from_numpy(np.array(array)) for name, array in record.arrays.items()},
            "is_shared": record.is_shared,
            "kernels": record.kernels,
            "evaluations": evaluations_to_state(record.evaluations),
        }
        for record in records
    ]


def records_from_state(state: Sequence[dict[str, Any]]) -> list[EpochRecord]:
    """The inverse of `records_to_state`, exact to the last bit."""
    return [
        EpochRecord(
            epoch=entry["epoch"],
            phase=entry["phase"],
            metrics=entry["metrics"],
            architecture=Architecture.model_validate(entry["architecture"]),
            arrays={name: tensor.numpy() for name, tensor in entry["arrays"].items()},
            is_shared=entry["is_shared"],
            kernels=entry.get("kernels"),
            evaluations=evaluations_from_state(entry.get("evaluations", [])),
        )
        for entry in state
    ]
