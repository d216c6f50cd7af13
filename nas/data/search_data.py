"""The images of a search: loaded, split, shuffled, augmented and normalized."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Generator

from nas.data.image_lists import Listing
from nas.data.image_source import load_images
from nas.data.splits import Batch, Split, check_batch_size, split_by_class
from nas.data.worker_pool import WorkerPool
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from nas.config import SearchConfig


@dataclass(frozen=True)
class SearchData:
    """The training images of a search, split for weight steps and architecture steps.

    Attributes:
        num_skipped_images: number of missing or broken files that were left out.
        fingerprint: see `fingerprint_data`.
        pool: decodes image files, for all batches; close it after the last one.
    """

    weight_split: Split
    arch_split: Split
    num_classes: int
    num_skipped_images: int
    fingerprint: str
    pool: WorkerPool

    @property
    def num_weight_images(self) -> int:
        """Number of images for weight steps."""
        return len(self.weight_split)

    @property
    def num_arch_images(self) -> int:
        """Number of images held out for architecture steps."""
        return len(self.arch_split)

    def weight_batches(self, generator: Generator) -> Iterator[Batch]:
        """Batches for one epoch of weight steps: shuffled, augmented, full batches only."""
        config = self.weight_split.config
        return self.weight_split.shuffled_batches(generator, augmentation=config.augmentation)

    def arch_batches(self, generator: Generator) -> Iterator[Batch]:
        """Endless batches for architecture steps: reshuffled after each pass, not augmented.

        Source: TF-NAS, implementation details (image files: resize to 256, crop the center 224).
        """
        return self.arch_split.shuffled_batches(generator, augmentation="none", endless=True)

    def val_batches(self) -> Iterator[Batch]:
        """All images held out for architecture steps, in a fixed mixed order, not augmented."""
        return self.arch_split.evaluation_batches()


def load_search_data(config: "SearchConfig", resolution: int, listing: Listing | None = None) -> SearchData:
    """Loads the training images and splits them by `config.seed`, stratified by class, or by their lists.

    Opens no file of the test images.

    Args:
        resolution: height and width of the batches, in pixels.
        listing: of `list_images`, with the training images; None to list now.

    Raises:
        UserError: images are missing or broken, or too few for the split or for one batch.
    """
    with WorkerPool.of(config).closed_on_error() as pool:
        return _load(config, resolution, listing, pool)


def _load(config: "SearchConfig", resolution: int, listing: Listing | None, pool: WorkerPool) -> SearchData:
    source = load_images(config, "train", resolution, listing=listing, pool=pool)
    if source.is_arch_N is not None:
        weight_indices, arch_indices = (
            chosen_N.nonzero()[:, 0] for chosen_N in (~source.is_arch_N, source.is_arch_N)
        )
    else:
        weight_indices, arch_indices = split_by_class(
            source.images.labels_N, source.num_classes, config.arch_fraction, config.seed
        )
    check_batch_size(config.batch_size, len(weight_indices), "weight steps")
    check_batch_size(config.batch_size, len(arch_indices), "architecture steps")
    _check_arch_steps(config, len(weight_indices) // config.batch_size)
    weight_split, arch_split = (
        Split(source.images, indices, config) for indices in (weight_indices, arch_indices)
    )
    return SearchData(
        weight_split, arch_split, source.num_classes, source.num_skipped_images, source.fingerprint, pool
    )


def _check_arch_steps(config: "SearchConfig", num_weight_steps: int) -> None:
    """Checks that an epoch has an architecture step: without, a search would end as it began."""
    if "weight_steps_per_arch_step" in config.unused_fields():
        return
    if config.weight_steps_per_arch_step > num_weight_steps:
        raise UserError(
            f"weight_steps_per_arch_step: {config.weight_steps_per_arch_step}; an epoch has "
            f"{num_weight_steps} weight steps, so there would be no architecture step; use a smaller "
            "batch_size, a smaller arch_fraction or more images"
        )
