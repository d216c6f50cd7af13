"""What a search yields: one record per epoch, and all epochs together as a trajectory.

Shapes: E epochs, L searchable layers, O candidates (the space's operators and, where identity is a
candidate, identity last), S stages, D depths of a stage (0 to the longest stage's layers), P phases of
elasticity-scaling.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from nas.foundation.errors import UserError
from nas.foundation.files import check_archive, read_file, write_atomically
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space

Phase = Literal["warmup", "joint", "evaluation"]
"""What an epoch does: train weights alone, train weights and architecture, or evaluate networks."""

_MAX_BYTES = 100_000_000

METRIC_NAMES: tuple[str, ...] = (
    "val_accuracy",
    "derived_latency_ms",
    "latency_error_percent",
    "derived_depth",
    "epoch_seconds",
    "num_skipped_images",
)
"""Names of an epoch's metrics that every method has."""

SUPERNET_METRIC_NAMES: tuple[str, ...] = (
    "train_loss",
    "train_accuracy",
    "arch_loss",
    "expected_latency_ms",
    "alpha_entropy",
    "temperature",
    "weight_lr",
    "redundant_encoding",
)
"""Further ones, of methods that train a supernet with alphas; `arch_loss` is missing in warm-up epochs."""

EVALUATION_METRIC_NAMES: tuple[str, ...] = (
    *("num_evaluations", "predictor_tau", "predictor_tau_low", "predictor_tau_high"),
)
"""Further ones of rounds of evaluation; tau is that of the predictor, with its 95 % interval."""

STEP_METRIC_NAMES: tuple[str, ...] = ("num_weight_steps",)
"""Further ones of methods that train a supernet; runs that are older than these lack them."""

FINAL_METRIC_NAMES: tuple[str, ...] = ("chance_accuracy", "num_health_findings")
"""Further ones of the last epoch only."""

SUPERNET_FINAL_METRIC_NAMES: tuple[str, ...] = ("initial_accuracy",)
"""The same, of methods that train a supernet with alphas: the held-out accuracy of the initial operators."""

MULTIPLIER_METRIC_NAMES: tuple[str, ...] = ("latency_multiplier",)
"""Further ones of a search whose objective learns a multiplier; it is 0 in warm-up epochs."""

GPU_METRIC_NAMES: tuple[str, ...] = ("peak_gpu_memory_bytes",)
"""Further ones of a search on CUDA."""


@dataclass(frozen=True)
class Evaluation:
    """A network that a method evaluated with the weights of a supernet.

    Attributes:
        number: counts from 1 over the whole search.
        val_accuracy: held-out accuracy, a fraction of 1.
        predicted_score: what a predictor of accuracy expected before; None without one.
    """

    number: int
    architecture: Architecture
    latency_ms: float
    val_accuracy: float
    predicted_score: float | None = None


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a search.

    Attributes:
        epoch: counts from 1, warm-up and rounds of evaluation included.
        phase: `warmup`, `joint` or `evaluation`.
        metrics: see `METRIC_NAMES` and those below it; accuracies are fractions of 1.
        architecture: the network that would be derived at the end of the epoch.
        arrays: this epoch's row of each array of `Trajectory`.
        is_shared: whether it is a warm-up epoch that another search computed; `epoch_seconds` is
            what it took there.
        kernels: what computed the mixed blocks (`nas.supernet.kernels`); None where it is not known.
        evaluations: the networks that were evaluated, in a round of evaluation.
    """

    epoch: int
    phase: Phase
    metrics: dict[str, float]
    architecture: Architecture
    arrays: dict[str, NDArray[Any]]
    is_shared: bool = False
    kernels: str | None = None
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """All epochs of a search as arrays, and the file `trajectory.npz`.

    Attributes:
        space: name of the space.
        depth: `sink` or `skip`.
        epoch_E: counts from 1.
        is_joint_E: False in warm-up epochs.
        derived_op_EL: index of each layer's operator in the derived network; -1 where the layer
            is not kept.
        alpha_ELO: log-probabilities; -inf where a layer lacks the candidate (identity). This and all
            that follow are None where the method has no such thing.
        beta_ESD: log-probabilities of each stage's depths 0, 1, ...; -inf where impossible. D is 0
            in the skip space.
        mid_channels_ELO: active mid channels of each candidate; 0 for identity.
        train_count_ELO: how many paths through the candidate were trained in the epoch.
        scaling_ms_EP: latency of the derived network before elasticity-scaling, after the phase
            over all stages, after the phase over stages s..S for s = 2..S, and after the
            refinement (if any); NaN where nothing was scaled.
        redundant_E: whether other encodings derive the same network (skip space only).
    """

    space: str
    depth: str
    epoch_E: NDArray[np.int64]
    is_joint_E: NDArray[np.bool_]
    derived_op_EL: NDArray[np.int64]
    alpha_ELO: NDArray[np.float32] | None = None
    beta_ESD: NDArray[np.float32] | None = None
    mid_channels_ELO: NDArray[np.int64] | None = None
    train_count_ELO: NDArray[np.int64] | None = None
    scaling_ms_EP: NDArray[np.float64] | None = None
    redundant_E: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, space: str, depth: str, records: Sequence[EpochRecord]) -> Self:
        """Stacks the records of a search."""
        arrays = {name: np.stack([r.arrays[name] for r in records]) for name in records[0].arrays}
        arrays.setdefault("derived_op_EL", _stack_operators(space, records))
        return cls(
            space=space,
            depth=depth,
            epoch_E=np.array([r.epoch for r in records]),
            is_joint_E=np.array([r.phase == "joint" for r in records]),
            **arrays,
        )

    def save(self, path: str | Path) -> None:
        """Writes `trajectory.npz`, at once: somebody may read it after each epoch."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_atomically(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads `trajectory.npz`; never unpickles.

        Raises:
            UserError: the file is missing, damaged or lacks an array.
        """
        content = read_file(path, "a trajectory")
        try:
            check_archive(content, _MAX_BYTES)
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays: dict[str, Any] = {name: np.asarray(file[name]) for name in file.files}
            trajectory = cls(**arrays | {name: str(arrays[name]) for name in ("space", "depth")})
            trajectory._check_shapes()
            return trajectory
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: not a trajectory: {error}; run the search again") from None
        # An array whose header asks for more than there is.
        except MemoryError:
            raise UserError(f"{path}: not a trajectory: larger than memory; run the search again") from None

    def _check_shapes(self) -> None:
        """Checks the arrays against the axes that their names say, and operators against the space.

        Raises:
            ValueError: one has other axes, or an axis differs in length from another array
                or from the space; or the space lacks an operator.
        """
        space = get_space(self.space)
        sizes = {"L": len(space.layers), "S": len(space.stages)}
        for name, array in vars(self).items():
            if array is None or isinstance(array, str):
                continue
            # Beta has no element in the skip space, which has no sinks.
            if name == "beta_ESD" and self.depth == "skip" and array.size == 0:
                continue
            axes = name.rpartition("_")[2]
            if array.ndim != len(axes) or array.dtype.kind not in "bif":
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
            for axis, size in zip(axes, array.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"{name} has shape {array.shape}, but {axis} is {sizes[axis]}")
        is_operator_EL = (self.derived_op_EL >= -1) & (self.derived_op_EL < len(space.candidate_names))
        if not is_operator_EL.all():
            raise ValueError(f"derived_op_EL has {self.derived_op_EL[~is_operator_EL][0]}")


def _stack_operators(space_name: str, records: Sequence[EpochRecord]) -> NDArray[np.int64]:
    """`derived_op_EL` by the records' architectures, whose layers are the first ones of each stage."""
    space = get_space(space_name)
    names = space.candidate_names
    derived_op_EL = np.full((len(records), len(space.layers)), -1, dtype=np.int64)
    for epoch, record in enumerate(records):
        for layer, op, _ in record.architecture.layers:
            derived_op_EL[epoch, space.layers.index(layer)] = names.index(op.name)
    return derived_op_EL


def evaluations_to_state(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations as what a checkpoint may hold."""
    return [vars(each) | {"architecture": each.architecture.model_dump(mode="json")} for each in evaluations]


def evaluations_from_state(state: Sequence[dict[str, Any]]) -> tuple[Evaluation, ...]:
    """The inverse of `evaluations_to_state`."""
    return tuple(
        Evaluation(**entry | {"architecture": Architecture.model_validate(entry["architecture"])})
        for entry in state
    )
