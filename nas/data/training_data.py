"""The images of a training: the training images in two parts, and the test images."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator

from nas.data.datasets import DATASETS
from nas.data.image_lists import Listing
from nas.data.image_source import fingerprint_data, list_images, load_images
from nas.data.memory_images import Part
from nas.data.splits import Batch, Split, check_batch_size, split_by_class
from nas.data.worker_pool import WorkerPool
from nas.foundation.errors import UserError
from nas.foundation.world import ALONE, World

if TYPE_CHECKING:
    from nas.config import TrainConfig


PARTS: tuple[Part, ...] = ("train", "test")
"""The images that a training uses."""


@dataclass(frozen=True)
class TrainingData:
    """The images of a training: the training images in two parts, and the test images.

    Attributes:
        val_split: the images that choose the best epoch: training images held out for it or, if
            `val_fraction` is 0, the test images.
        num_skipped_images: number of missing or broken files that were left out.
        class_names: one per label.
        fingerprint: of training and test images; see `fingerprint_data`.
        pool: decodes image files, for all batches; close it after the last one.
    """

    train_split: Split
    val_split: Split
    test_split: Split
    num_skipped_images: int
    class_names: tuple[str, ...]
    fingerprint: str
    pool: WorkerPool

    @property
    def num_classes(self) -> int:
        """Number of classes; all labels are below it."""
        return len(self.class_names)

    @property
    def num_train_images(self) -> int:
        """Number of images that an epoch trains on."""
        return len(self.train_split)

    def train_batches(self, generator: Generator) -> Iterator[Batch]:
        """Batches for one epoch: shuffled and augmented; the last one may be smaller."""
        augmentation = self.train_split.config.augmentation
        return self.train_split.shuffled_batches(
            generator, augmentation=augmentation, num_images=self.num_train_images
        )


def load_training_data(
    config: "TrainConfig", resolution: int, world: World = ALONE, listing: Listing | None = None
) -> TrainingData:
    """Loads all images and splits the training images by `config.seed`, stratified by class.

    Args:
        resolution: height and width of the batches, in pixels.
        world: the processes that share each batch.
        listing: of `list_images`, with both parts; None to list now.

    Raises:
        UserError: images are missing or broken, or too few for the split or for one batch.
    """
    with WorkerPool.of(config).closed_on_error() as pool:
        return _load(config, resolution, world, listing or list_images(config, PARTS), pool)


def _load(
    config: "TrainConfig", resolution: int, world: World, listing: Listing, pool: WorkerPool
) -> TrainingData:
    train, test = (load_images(config, part, resolution, world, listing=listing, pool=pool) for part in PARTS)
    class_names = listing["train"].class_names if listing else DATASETS[config.dataset].class_names(config)
    test_split = Split(test.images, torch.arange(len(test.images.labels_N)), config, world)
    if config.val_fraction == 0:
        train_indices, val_split = torch.arange(len(train.images.labels_N)), test_split
    else:
        train_indices, val_indices = split_by_class(
            train.images.labels_N, train.num_classes, config.val_fraction, config.seed
        )
        val_split = Split(train.images, val_indices, config, world)
    check_batch_size(config.batch_size, len(train_indices), "training")
    _check_last_batch(config.batch_size, len(train_indices), world)
    return TrainingData(
        Split(train.images, train_indices, config, world),
        val_split,
        test_split,
        train.num_skipped_images + test.num_skipped_images,
        class_names,
        _combine(train.fingerprint, test.fingerprint),
        pool,
    )


def fingerprint_training_data(config: "TrainConfig", listing: Listing | None = None) -> str:
    """SHA-256 of the training and the test images; decodes no image file. See `fingerprint_data`.

    Raises:
        UserError: images are missing.
    """
    listing = listing or list_images(config, PARTS)
    return _combine(*(fingerprint_data(config, part, listing) for part in PARTS))


def _check_last_batch(batch_size: int, num_images: int, world: World) -> None:
    num_in_last = num_images % batch_size or batch_size
    if num_in_last < world.size:
        raise UserError(
            f"batch_size: {batch_size}; the last batch of an epoch has {num_in_last} of {num_images} images, "
            f"fewer than the {world.size} processes; use another batch_size or fewer processes"
        )


def _combine(train_fingerprint: str, test_fingerprint: str) -> str:
    return hashlib.sha256(f"{train_fingerprint}/{test_fingerprint}".encode()).hexdigest()
