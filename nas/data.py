"""The images of a search or of a training: loaded, split, shuffled, augmented, normalised.

Shapes: B batch, C channels, H W space, N images, K chosen images.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from nas.augment import child_generator, normalise
from nas.config import FILE_DATASETS, Augmentation, DataConfig, SearchConfig
from nas.errors import UserError
from nas.image_files import FileImages, find_sound_files
from nas.image_lists import FileList, list_image_files
from nas.image_sets import NUM_CLASSES, Arrays, MemoryImages, Part, read_image_set

Batch = tuple[Tensor, Tensor]
"""float32 images_BCHW (normalised, 3 channels, channels_last) and int64 labels_B."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MEAN_AND_STD: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "fashion_mnist_subset": ((0.2860,), (0.3530,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class Images(Protocol):
    """Images in memory or in files."""

    labels_N: Tensor

    def batches(
        self, batch_indices: Iterator[Tensor], augmentation: Augmentation, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images_BHWC (0 to 255) and labels_B for each tensor of indices."""


@dataclass(frozen=True)
class Split:
    """Some of the images of a dataset, as batches."""

    images: Images
    indices_K: Tensor
    config: DataConfig
    batch_size: int
    device: str

    def __len__(self) -> int:
        return len(self.indices_K)

    def shuffled_batches(
        self, generator: Generator, *, augmentation: Augmentation, endless: bool = False
    ) -> Iterator[Batch]:
        """Full batches in random order, over all images once, or over and over.

        Draws once from the generator, at the call; the batches do not depend on what else is
        drawn from it, nor on the number of worker processes.
        """
        own = child_generator(generator)
        return self._batches(
            _shuffle(self.indices_K, self.batch_size, child_generator(own), endless), augmentation, own
        )

    def ordered_batches(self) -> Iterator[Batch]:
        """All images in their order, not augmented; the last batch may be smaller."""
        return self._batches(iter(torch.split(self.indices_K, self.batch_size)), "none", Generator())

    def _batches(
        self, batch_indices: Iterator[Tensor], augmentation: Augmentation, generator: Generator
    ) -> Iterator[Batch]:
        mean, std = mean_and_std(self.config)
        mean_C, std_C = torch.tensor(mean), torch.tensor(std)
        pin = self.device != "cpu" and torch.cuda.is_available()
        for images_BHWC, labels_B in self.images.batches(batch_indices, augmentation, generator):
            images_BCHW = normalise(images_BHWC, mean_C, std_C)
            yield (images_BCHW.pin_memory(), labels_B.pin_memory()) if pin else (images_BCHW, labels_B)


@dataclass(frozen=True)
class SearchData:
    """The training images of a search, split for weight and for architecture steps.

    Attributes:
        num_skipped_images: files that are missing or broken and were left out.
        fingerprint: SHA-256 of what determines the images and labels.
    """

    weight_split: Split
    arch_split: Split
    num_classes: int
    num_skipped_images: int
    fingerprint: str

    @property
    def num_weight_images(self) -> int:
        """Images for weight steps."""
        return len(self.weight_split)

    @property
    def num_arch_images(self) -> int:
        """Images held out for architecture steps."""
        return len(self.arch_split)

    def weight_batches(self, generator: Generator) -> Iterator[Batch]:
        """One epoch of weight steps: shuffled, augmented, full batches only."""
        config = self.weight_split.config
        return self.weight_split.shuffled_batches(generator, augmentation=config.augmentation)

    def arch_batches(self, generator: Generator) -> Iterator[Batch]:
        """Batches for architecture steps without end: shuffled anew each time round, not augmented.

        Source: TF-NAS, implementation details (image files: resize to 256, crop the centre 224).
        """
        return self.arch_split.shuffled_batches(generator, augmentation="none", endless=True)

    def val_batches(self) -> Iterator[Batch]:
        """All images held out for architecture steps, in their order, not augmented."""
        return self.arch_split.ordered_batches()


def load_search_data(config: SearchConfig, resolution: int) -> SearchData:
    """Loads the training images and splits them, stratified by class, by `config.seed`.

    No file of the test images is opened.

    Args:
        resolution: height and width of the batches, in pixels.

    Raises:
        UserError: images are missing or broken, or too few for the split or for one batch.
    """
    source = _load_train(config, resolution)
    weight_indices, arch_indices = split_by_class(
        source.images.labels_N, source.num_classes, config.arch_fraction, config.seed
    )
    for indices, share in ((weight_indices, "weight steps"), (arch_indices, "architecture steps")):
        if len(indices) < config.batch_size:
            raise UserError(
                f"batch_size: {config.batch_size}; only {len(indices)} images are there for {share}; "
                "make it smaller or use more images"
            )
    weight_split, arch_split = (
        Split(source.images, indices, config, config.batch_size, config.device)
        for indices in (weight_indices, arch_indices)
    )
    return SearchData(
        weight_split, arch_split, source.num_classes, source.num_skipped_images, source.fingerprint
    )


def fingerprint_data(config: DataConfig) -> str:
    """SHA-256 of the training images that a search would use, without decoding image files.

    Images in memory: their bytes and labels. Image files: sorted relative paths, sizes and labels.

    Raises:
        UserError: images are missing.
    """
    if config.dataset in FILE_DATASETS:
        return _fingerprint_files(_limited_files(config))
    return _fingerprint_memory(*_limited_arrays(config))


def mean_and_std(config: DataConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that normalise a dataset: one value or three, for 0..1."""
    return _MEAN_AND_STD.get(config.dataset, _IMAGENET)


def split_by_class(
    labels_N: Tensor, num_classes: int, held_out_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Splits images at random so that each class has the same share in both parts.

    Each class's share is rounded to the nearest image, but at least one image is on either side.

    Returns:
        Indices of the rest and of the held-out images, each ascending.

    Raises:
        UserError: a class has fewer than two images.
    """
    generator = Generator().manual_seed(seed)
    rest, held_out = [], []
    for label, num_images in enumerate(torch.bincount(labels_N, minlength=num_classes).tolist()):
        if num_images < 2:
            raise UserError(
                f"dataset: class {label} has {num_images} training images; the split needs at least 2"
            )
        num_held_out = min(max(round(num_images * held_out_fraction), 1), num_images - 1)
        members = (labels_N == label).nonzero()[:, 0]
        members = members[torch.randperm(num_images, generator=generator)]
        held_out.append(members[:num_held_out])
        rest.append(members[num_held_out:])
    return torch.cat(rest).sort().values, torch.cat(held_out).sort().values


def first_of_each_class(labels_N: Tensor, num_images: int | None) -> Tensor:
    """Indices, ascending, of the first images of each class: `num_images` in all.

    Classes keep their shares; what is left of rounding down goes to the classes that lost most by
    it, the first class first among equals. None keeps all images.
    """
    if num_images is None or num_images >= len(labels_N):
        return torch.arange(len(labels_N))
    exact = torch.bincount(labels_N).double() * num_images / len(labels_N)
    counts = exact.floor().long()
    order = torch.argsort(exact - counts, descending=True, stable=True)
    counts[order[: num_images - int(counts.sum())]] += 1
    chosen = [(labels_N == label).nonzero()[:count, 0] for label, count in enumerate(counts.tolist())]
    return torch.cat(chosen).sort().values


@dataclass(frozen=True)
class _Source:
    images: Images
    num_classes: int
    num_skipped_images: int
    fingerprint: str


def _load_train(config: DataConfig, resolution: int) -> _Source:
    if config.dataset not in FILE_DATASETS:
        images_NHWC, labels_N = _limited_arrays(config)
        images = MemoryImages(images_NHWC, labels_N, resolution)
        fingerprint = _fingerprint_memory(images_NHWC, labels_N)
        return _Source(images, NUM_CLASSES[config.dataset], 0, fingerprint)
    listed = _limited_files(config)
    files, num_skipped = _without_broken(listed, config)
    return _Source(
        FileImages(files, resolution, config.num_data_workers),
        files.num_classes,
        num_skipped,
        _fingerprint_files(listed),
    )


def _limited_arrays(config: DataConfig) -> Arrays:
    images_NHWC, labels_N = read_image_set(config, "train")
    chosen = first_of_each_class(torch.from_numpy(labels_N.astype(np.int64)), config.max_train_images).numpy()
    return images_NHWC[chosen], labels_N[chosen]


def _limited_files(config: DataConfig, part: Part = "train") -> FileList:
    files = list_image_files(config, part)
    return files.take(first_of_each_class(torch.tensor(files.labels), config.max_train_images).tolist())


def _without_broken(files: FileList, config: DataConfig) -> tuple[FileList, int]:
    if not config.skip_broken_images:
        return files, 0
    sound = find_sound_files(files, config.num_data_workers)
    return files.take(sound), len(files) - len(sound)


def _shuffle(indices_K: Tensor, batch_size: int, generator: Generator, endless: bool) -> Iterator[Tensor]:
    num_batches = len(indices_K) // batch_size
    while True:
        order = torch.randperm(len(indices_K), generator=generator)[: num_batches * batch_size]
        yield from torch.split(indices_K[order], batch_size)
        if not endless:
            return


def _fingerprint_memory(images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(str(images_NHWC.shape).encode())
    digest.update(images_NHWC.tobytes())
    digest.update(labels_N.tobytes())
    return digest.hexdigest()


def _fingerprint_files(files: FileList) -> str:
    rows = sorted(f"{file.path}\0{file.size_bytes}\0{file.label}" for file in files.files)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
