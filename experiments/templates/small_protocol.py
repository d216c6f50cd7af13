"""SmallProtocol: epochs, rates and cost of a small search, by the rules of docs/protocol.md."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from experiments.templates.chosen_images import ChosenImages
from nas.foundation.errors import UserError
from nas.space.macro_space import get_space

WALK = 3.6
"""Random walk of an architecture parameter in the published search, which the learning rate keeps."""

NUM_ARCH_STEPS = 450
"""Architecture steps of a search, as in the shipped files."""

_STEPS_PER_CANDIDATE = 37
"""Warm-up steps per candidate operator, as in the shipped files; the health check asks for 20."""

_NUM_IMAGES, _NUM_IMAGES_PER_CLASS = 1200, 60
_BATCH_SIZES = (16, 8, 4, 2)
_ARCH_SHARE = 0.2

_TRAINING = {"num_images": 2500, "num_epochs": 20, "batch_size": 32}

_STEP_S = {"micro": (0.021, 0.08), "small32": (0.29, 1.6), "paper": (0.91, 3.8)}
"""Seconds of a step along one path, and of an architecture step, at batch 16 on one core, as measured.

See docs/protocol.md. They do not include decoding image files.
"""

_GPU_SPEEDUP = 10.0
"""An assumption: nothing was measured."""


@dataclass(frozen=True)
class SmallProtocol:
    """How long a search of some images is, and how fast it learns.

    Attributes:
        num_images: training images to use.
        num_weight_steps: of an epoch.
    """

    images: ChosenImages
    num_images: int
    batch_size: int
    num_weight_steps: int
    num_warmup_epochs: int
    num_joint_epochs: int

    @classmethod
    def of(cls, images: ChosenImages) -> Self:
        """The shortest search that keeps what the published one has.

        Raises:
            UserError: there are too few images.
        """
        num_images = max(_NUM_IMAGES, _NUM_IMAGES_PER_CLASS * images.num_classes)
        batch_size, num_steps = _batch(images, num_images)
        num_ops = len(get_space(images.space).ops)
        return cls(
            images,
            num_images,
            batch_size,
            num_steps,
            num_warmup_epochs=math.ceil(_STEPS_PER_CANDIDATE * num_ops / num_steps),
            num_joint_epochs=math.ceil(NUM_ARCH_STEPS / max(num_steps // 2, 1)),
        )

    @property
    def num_epochs(self) -> int:
        """All epochs."""
        return self.num_warmup_epochs + self.num_joint_epochs

    @property
    def num_arch_steps(self) -> int:
        """Of a search."""
        return self.num_joint_epochs * (self.num_weight_steps // 2)

    @property
    def arch_lr(self) -> float:
        """The rate that keeps the published random walk, to two digits."""
        return float(f"{WALK / math.sqrt(self.num_arch_steps):.2g}")

    @property
    def target(self) -> str:
        """A target that binds: where `micro` was tried, a quarter of the interval."""
        return "25%" if self.images.space == "micro" else "50%"

    def search_s(self, fields: dict[str, Any], device: str) -> float:
        """About how long a search takes on one core, or on a GPU.

        Args:
            fields: of the question: `method` and `sampling` decide the number of paths.
        """
        path_s, arch_s = self._step_s(device)
        paths_of_warmup = self.num_warmup_epochs * self.num_weight_steps
        if fields.get("method", "tf_nas") != "tf_nas":
            return path_s * self.num_epochs * self.num_weight_steps
        paths = 1 if fields.get("sampling") == "single" else 2
        joint_paths = paths * self.num_joint_epochs * self.num_weight_steps
        return path_s * (paths_of_warmup + joint_paths) + arch_s * self.num_arch_steps

    def training_s(self, device: str) -> float:
        """About how long a training of one network takes, at most; see `training_fields`."""
        num_steps = _TRAINING["num_epochs"] * _TRAINING["num_images"] / _TRAINING["batch_size"]
        return self._step_s(device)[0] * num_steps

    @property
    def num_training_epochs(self) -> int:
        """More, the fewer images there are, so that the network takes enough steps."""
        num_found = self.num_weight_steps * self.batch_size / (1 - _ARCH_SHARE)
        return round(_TRAINING["num_epochs"] * max(1, _NUM_IMAGES / num_found))

    def _step_s(self, device: str) -> tuple[float, float]:
        factor = self.batch_size / 16 / (_GPU_SPEEDUP if device == "cuda" else 1)
        path_s, arch_s = _STEP_S[self.images.space]
        return path_s * factor, arch_s * factor

    def search_fields(self) -> Iterator[tuple[str, Any, str]]:
        """The fields of its searches: name, value and comment."""
        space, is_micro = self.images.space, self.images.space == "micro"
        yield "space", space, "the space closest to the size of the images"
        for name, value in self.images.fields.items():
            yield name, value, ""
        yield "max_train_images", self.num_images, "the first ones of each class; more make longer epochs"
        yield "augmentation", _augmentation(space), ""
        yield "latency_table", "measure", "on this machine, before the first search"
        if space != "paper":
            yield "latency_batch_size", 32, "widths hardly matter at batch 1 in a small space"
        yield "derivation", "in_reach", "beyond the paper: short searches miss the target without it"
        yield "num_epochs", self.num_epochs, f"{self.num_arch_steps} architecture steps"
        yield (
            "num_warmup_epochs",
            self.num_warmup_epochs,
            f"at least {_STEPS_PER_CANDIDATE} steps per candidate",
        )
        yield "batch_size", self.batch_size, ""
        yield "weight_lr", 0.1, "" if is_micro else f"chosen on micro, never tried in {space}"
        yield "arch_lr", self.arch_lr, "the published random walk: 3.6 / sqrt(architecture steps)"
        yield "final_temperature", 0.2, "where the published search ends"

    def training_fields(self) -> Iterator[tuple[str, Any, str]]:
        """The fields of trainings of its networks."""
        for name, value in self.images.fields.items():
            yield name, value, ""
        yield "max_train_images", max(_TRAINING["num_images"], self.num_images), ""
        yield "augmentation", "paper" if self.images.space == "paper" else "crop_flip", ""
        yield "num_epochs", self.num_training_epochs, "more for fewer images"
        yield "num_warmup_epochs", 1, ""
        yield "batch_size", 2 * self.batch_size, ""
        yield "lr", 0.05, "the published rate is for batches of 512"
        yield "lr_schedule", "per_step", "a rate that changes within epochs, which are short"


def _augmentation(space: str) -> str:
    return {"micro": "none", "small32": "crop_flip", "paper": "paper"}[space]


def _batch(images: ChosenImages, num_images: int) -> tuple[int, int]:
    """The largest batch for which there are enough images, and the weight steps of an epoch with it."""
    problem: UserError | None = None
    for batch_size in _BATCH_SIZES:
        try:
            fields = images.fields | {"max_train_images": num_images, "batch_size": batch_size}
            num_steps = images.count_weight_steps(fields)
        except UserError as error:
            problem = problem or error
            continue
        if num_steps >= 2:
            return batch_size, num_steps
    raise problem or UserError(f"--images: too few for {_ARCH_SHARE:.0%} of them to train alphas; add images")
