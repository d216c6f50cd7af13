"""Health of a search: checks of its epochs, each with the field to change if it fails.

Shapes: E epochs, L searchable layers, O candidates.

Source: TF-NAS, implementation details; `docs/protocol.md` derives the limits.
"""

import math
import re
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.foundation.errors import UserError
from nas.latency.elasticity import MAX_LATENCY_ERROR_PERCENT
from nas.search.records import EpochRecord, Trajectory
from nas.space.macro_space import get_space

if TYPE_CHECKING:
    from nas.config import SearchConfig

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

MAX_FINAL_ENTROPY = 0.6
"""Highest entropy of alpha at the end, as a fraction of that of a uniform distribution.

It is the mean over the layers whose alpha decides something: those that are kept, and those with identity as
a candidate. In a sink stage, the layers behind the chosen depth hardly contribute, and stay near uniform.
"""

MIN_WALK = 1.0
"""Shortest random walk of an architecture parameter, the root of the summed squares of its rates.

The published one is 3.6: 0.01 over 127,000 steps.
"""

MAX_FINAL_TEMPERATURE = 0.5
"""Highest temperature of the last epoch; the published one is 0.2."""

MIN_WARMUP_STEPS = 20
"""Fewest warm-up steps of a candidate operator, on average; the published protocol has 4,000."""

MAX_SHARE_AT_FLOOR = 0.5
"""Largest share of the joint epochs in which the derived network has the fewest layers of its space."""

MIN_ACCURACY_GAIN = 0.1
"""Smallest share of the way from chance to an accuracy of 1."""

_WEIGHTS_OF_LATENCY = ("latency_weight", "latency_multiplier_lr", "objective_exponent")
"""Fields that, raised, make latency count more; at least one of them has an effect under each objective."""


@dataclass(frozen=True)
class HealthCheck:
    """One thing that a healthy search shows.

    Attributes:
        name: `alphas`, `temperature`, `warmup`, `latency`, `widths`, `depth` or `accuracy`.
        finding: what was measured, as a clause.
        remedy: the fields to change, as a clause; empty for a healthy search.
    """

    name: str
    is_healthy: bool
    finding: str
    remedy: str

    def __str__(self) -> str:
        return self.finding if self.is_healthy else f"{self.finding}; {self.remedy}"


def foresee_health(config: "SearchConfig", num_weight_steps: int) -> list[HealthCheck]:
    """What a config says about a search before it starts.

    Args:
        num_weight_steps: of an epoch.
    """
    unused = config.unused_fields()
    checks = []
    if "arch_lr" not in unused:
        checks.append(_foresee_alphas(config, num_weight_steps))
    if "initial_temperature" not in unused:
        last = config.initial_temperature * config.temperature_factor ** (config.num_joint_epochs - 1)
        checks.append(_check_temperature(last, "will be"))
    if "num_warmup_epochs" not in unused:
        num_ops = len(get_space(config.space).ops)
        mean_steps = config.num_warmup_epochs * num_weight_steps / num_ops
        checks.append(_check_warmup(mean_steps, "will be", unused))
    return checks


def check_health(config: "SearchConfig", records: Sequence[EpochRecord]) -> list[HealthCheck]:
    """What the epochs of a whole search show.

    Checks that do not apply are left out: those of alphas and of depth where a method does not move them, and
    those of the target without elasticity-scaling.
    """
    config = config.as_searched()
    unused = config.unused_fields()
    seen = Trajectory.of(config.space, config.depth, records)
    metrics = records[-1].metrics
    checks = []
    if seen.alpha_ELO is not None and records[-1].architecture.depth:
        decides_L = (seen.derived_op_EL[-1] >= 0) | _has_identity(seen)
        checks.append(_check_alphas(seen.alpha_ELO[:, decides_L], seen.is_joint_E))
    if "temperature" in metrics:
        checks.append(_check_temperature(metrics["temperature"], "is"))
    if seen.train_count_ELO is not None:
        num_ops = len(get_space(config.space).ops)
        counts_LO = seen.train_count_ELO[~seen.is_joint_E].sum(0)[:, :num_ops]
        checks.append(_check_warmup(float(counts_LO.mean()), "was", unused))
    if config.elasticity:
        weight = next((name for name in _WEIGHTS_OF_LATENCY if name not in unused), None)
        may_reach = "derivation" not in unused and config.derivation != "in_reach"
        checks.append(_check_latency(metrics["latency_error_percent"], weight, may_reach))
        checks.append(_check_widths(records[-1], weight))
    joint = [record for record in records if record.phase == "joint"]
    if joint:
        checks.append(_check_depth(config.space, joint))
    if {"initial_accuracy", "chance_accuracy"} <= metrics.keys():
        checks.append(
            _check_accuracy(metrics["val_accuracy"], metrics["initial_accuracy"], metrics["chance_accuracy"])
        )
    return checks


def _foresee_alphas(config: "SearchConfig", num_weight_steps: int) -> HealthCheck:
    num_steps = config.num_joint_epochs * (num_weight_steps // config.weight_steps_per_arch_step)
    # Of the squares of a cosine's rates; they are what a random walk sums.
    mean_square = 3 / 8 if config.arch_lr_schedule == "cosine" else 1.0
    walk_of_1 = math.sqrt(max(num_steps, 1) * mean_square)
    walk = config.arch_lr * walk_of_1
    return _check(
        "alphas",
        walk >= MIN_WALK,
        f"alphas will hardly move: {num_steps} architecture steps at arch_lr {config.arch_lr:g} are a "
        f"random walk of {walk:.2g} (published: 3.6)",
        f"raise arch_lr to {_round_up(MIN_WALK / walk_of_1):g}, or num_epochs",
    )


def _check(name: str, is_healthy: bool, finding: str, remedy: str) -> HealthCheck:
    return HealthCheck(name, bool(is_healthy), finding, "" if is_healthy else remedy)


def _has_identity(seen: Trajectory) -> Flags:
    """Whether each layer has identity as a candidate."""
    assert seen.alpha_ELO is not None
    num_ops = len(get_space(seen.space).ops)
    return np.asarray(np.isfinite(seen.alpha_ELO[-1, :, num_ops:]).any(-1))


def _check_alphas(alpha_ELO: Floats, is_joint_E: Flags) -> HealthCheck:
    """Checks the layers whose alpha decides something."""
    before_LO = alpha_ELO[~is_joint_E][-1] if not is_joint_E.all() else alpha_ELO[0]
    is_there_LO = np.isfinite(before_LO)
    after_LO = np.where(is_there_LO, alpha_ELO[-1], 0)
    travel = float(np.abs(after_LO - before_LO)[is_there_LO].mean())
    entropy_L = -(is_there_LO * np.exp(after_LO) * after_LO).sum(-1) / np.log(is_there_LO.sum(-1))
    entropy = float(entropy_L.mean())
    return _check(
        "alphas",
        entropy <= MAX_FINAL_ENTROPY,
        f"alphas moved by {travel:.2g} on average and end with {entropy:.0%} of a uniform distribution's "
        "entropy",
        "raise arch_lr or num_epochs",
    )


def _check_temperature(last: float, verb: str) -> HealthCheck:
    return _check(
        "temperature",
        last <= MAX_FINAL_TEMPERATURE,
        f"the temperature {verb} {last:.2g} in the last epoch",
        "set final_temperature to 0.2, where the published schedule ends",
    )


def _check_warmup(mean_steps: float, verb: str, unused: Set[str]) -> HealthCheck:
    epochs = "num_epochs" if "num_warmup_epochs" in unused else "num_warmup_epochs"
    return _check(
        "warmup",
        mean_steps >= MIN_WARMUP_STEPS,
        f"each candidate {verb} trained in {mean_steps:.1f} warm-up steps on average",
        f"at least {MIN_WARMUP_STEPS} are needed: raise {epochs} or max_train_images, or lower batch_size",
    )


def _check_latency(error_percent: float, weight: str | None, may_reach: bool) -> HealthCheck:
    """Checks the error.

    Args:
        weight: the field to raise so that latency weighs more, if there is one.
        may_reach: whether `derivation` can still be set to `in_reach`.
    """
    side, direction = ("above", "raise") if error_percent > 0 else ("below", "lower")
    first = "set derivation: in_reach, " if may_reach else ""
    first += f"raise {weight}, or " if weight else ""
    return _check(
        "latency",
        abs(error_percent) <= MAX_LATENCY_ERROR_PERCENT,
        f"the derived latency is {abs(error_percent):.1f} % {side} its target",
        f"{first}{direction} target_latency_ms",
    )


def _check_widths(record: EpochRecord, weight: str | None) -> HealthCheck:
    layers = record.architecture.layers
    intervals = [op.width_interval(layer.in_channels) for layer, op, _ in layers]
    num_lowest, num_highest = (
        sum(width == interval[end] for (_, _, width), interval in zip(layers, intervals, strict=True))
        for end in (0, 1)
    )
    stuck = {num_lowest: "lower", num_highest: "upper"}.get(len(layers))
    return _check(
        "widths",
        stuck is None,
        f"{num_lowest + num_highest} of {len(layers)} widths are at a bound"
        if stuck is None
        else f"every width is at its {stuck} bound",
        f"the depth does not suit the target: {f'raise {weight}, or ' if weight else ''}"
        f"{'raise' if stuck == 'lower' else 'lower'} target_latency_ms",
    )


def _check_depth(space_name: str, joint: Sequence[EpochRecord]) -> HealthCheck:
    """Checks that the depth was searched, and did not lie at its floor."""
    space = get_space(space_name)
    lowest = sum(space.min_depth(stage) for stage in range(len(space.stages)))
    num_at_floor = sum(record.architecture.depth == lowest for record in joint)
    depth = joint[-1].architecture.depth
    return _check(
        "depth",
        depth > lowest and num_at_floor <= MAX_SHARE_AT_FLOOR * len(joint),
        f"the derived network has {depth} of {lowest} to {len(space.layers)} layers, and had the fewest in "
        f"{num_at_floor} of {len(joint)} joint epochs",
        "raise num_warmup_epochs or target_latency_ms, or lower arch_lr",
    )


def _check_accuracy(accuracy: float, initial: float, chance: float) -> HealthCheck:
    return _check(
        "accuracy",
        accuracy > initial and accuracy - chance >= MIN_ACCURACY_GAIN * (1 - chance),
        f"held-out accuracy is {accuracy:.1%}, that of the initial operators {initial:.1%}, "
        f"chance {chance:.1%}",
        "raise num_epochs or weight_lr",
    )


def _round_up(number: float) -> float:
    """To one digit."""
    scale = 10.0 ** math.floor(math.log10(number))
    return float(f"{math.ceil(number / scale) * scale:.1g}")


_TYPES_OF_JSON = {"name": str, "is_healthy": bool, "finding": str, "remedy": str}
_NAME = re.compile("[a-z][a-z_]{0,30}")
_MAX_CHECKS = 20
_MAX_TEXT_LENGTH = 1000


def checks_to_json(checks: Sequence[HealthCheck]) -> list[dict[str, Any]]:
    """The checks of a search as JSON."""
    return [asdict(check) for check in checks]


def checks_from_json(content: Any, where: str | Path) -> list[HealthCheck]:
    """Reads what `checks_to_json` returned, wherever it has been meanwhile.

    Args:
        where: what the error names, such as a file's path.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(content, list) or not 1 <= len(content) <= _MAX_CHECKS:
        raise _not_checks(content, where)
    for entry in content:
        if not _is_check(entry):
            raise _not_checks(entry, where)
    if len({entry["name"] for entry in content}) < len(content):
        raise _not_checks(content, where)
    return [HealthCheck(**entry) for entry in content]


def _not_checks(found: Any, where: str | Path) -> UserError:
    shown = repr(found)[:60]
    return UserError(
        f"{where}: not the health checks of a search: {shown}; remove the file, or run the search again"
    )


def _is_check(entry: Any) -> bool:
    if not isinstance(entry, dict) or {key: type(entry[key]) for key in entry} != _TYPES_OF_JSON:
        return False
    texts = (entry["finding"], entry["remedy"])
    is_shown_safely = all(text.isprintable() and len(text) <= _MAX_TEXT_LENGTH for text in texts)
    return is_shown_safely and bool(_NAME.fullmatch(entry["name"]))
