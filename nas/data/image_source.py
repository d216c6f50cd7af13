"""The images of a data set, in memory or in files.

Shapes: B batch, N images, H W space, C channels.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.datasets import DATASETS
from nas.data.image_files import FileImages, without_broken_files
from nas.data.image_lists import FileList, Listing
from nas.data.memory_images import Arrays, MemoryImages, Part
from nas.data.worker_pool import WorkerPool
from nas.foundation.errors import UserError
from nas.foundation.files import read_file
from nas.foundation.world import ALONE, World

if TYPE_CHECKING:
    from nas.config import DataConfig

_NUM_TELLING_SIZES = 32
"""With fewer different sizes, as uncompressed images have, two data sets may agree in all of them."""

_NUM_READ_FILES = 256
_NUM_READ_BYTES = 1_000_000


class Images(Protocol):
    """Images in memory or in files."""

    labels_N: Tensor
    resolution: int

    def batches(
        self,
        batch_indices: Iterator[Tensor],
        augmentation: Augmentation,
        generator: Generator,
        world: World = ALONE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images_BHWC (0 to 255) and labels_B: this process's share of each tensor of indices.

        Of the augmentation, only a random resized crop and flip are done; see `draw_change` for the rest.
        """


@dataclass(frozen=True)
class ImageSource:
    """The training or test images of a data set.

    Attributes:
        num_classes: number of classes; all labels are below it.
        num_skipped_images: number of missing or broken files that were left out.
        fingerprint: see `fingerprint_data`.
        is_arch_N: which images a list of their own names for architecture steps; None without such a list.
    """

    images: Images
    num_classes: int
    num_skipped_images: int
    fingerprint: str
    is_arch_N: Tensor | None = None


def list_images(config: "DataConfig", parts: Sequence[Part]) -> Listing:
    """Lists the image files of some parts of a data set; empty for images in memory. Opens no image.

    Raises:
        UserError: images are missing, or lists or folders are wrong.
    """
    list_files = DATASETS[config.dataset].files
    return list_files(config, parts) if list_files else {}


def load_images(
    config: "DataConfig",
    part: Part,
    resolution: int,
    world: World = ALONE,
    *,
    listing: Listing | None = None,
    pool: WorkerPool | None = None,
) -> ImageSource:
    """Loads the training or test images of a data set, and opens no file of the other part.

    Args:
        resolution: height and width of the batches, in pixels.
        world: processes that share the search for broken files.
        listing: of `list_images`, with this part; None to list now.
        pool: decodes image files; None to decode in this process.

    Raises:
        UserError: images are missing or damaged.
    """
    dataset = DATASETS[config.dataset]
    if not dataset.is_in_files:
        images_NHWC, labels_N = _limited_arrays(config, part)
        images = MemoryImages(images_NHWC, labels_N, resolution)
        fingerprint = _fingerprint_memory(images_NHWC, labels_N)
        return ImageSource(images, dataset.count_classes(config), 0, fingerprint)
    files = listed = _limited_files(config, part, listing)
    pool = pool or WorkerPool(0)
    if config.skip_broken_images:
        files = without_broken_files(listed, pool, world)
    return ImageSource(
        FileImages(files, resolution, pool),
        len(files.class_names),
        len(listed) - len(files),
        _fingerprint_files(listed),
        files.is_arch_N,
    )


def fingerprint_data(config: "DataConfig", part: Part = "train", listing: Listing | None = None) -> str:
    """SHA-256 of the images that a search or a training would use; decodes no image file.

    Images in memory: their bytes and labels. Image files: relative paths, sizes, labels and, with lists for
    weight and architecture steps, which one names them. Their order has no effect on results. Pixels are not
    part of it, since reading them would take longer than an epoch: who replaces an image by another of the
    same size in bytes has to rename it or its folder. But where sizes tell little, since there are only a few
    different ones, it includes the content of 256 files.

    Args:
        listing: of `list_images`, with this part; None to list now.

    Raises:
        UserError: images are missing.
    """
    if DATASETS[config.dataset].is_in_files:
        return _fingerprint_files(_limited_files(config, part, listing))
    return _fingerprint_memory(*_limited_arrays(config, part))


def first_of_each_class(labels_N: Tensor, num_images: int | None) -> Tensor:
    """Indices, ascending, of the first images of each class, `num_images` in all.

    Classes keep their shares. Counts are rounded down, and the remainder goes to the classes that lost
    most by rounding; ties go to the lower label. None keeps all images.
    """
    if num_images is None or num_images >= len(labels_N):
        return torch.arange(len(labels_N))
    exact = torch.bincount(labels_N).double() * num_images / len(labels_N)
    counts = exact.floor().long()
    order = torch.argsort(exact - counts, descending=True, stable=True)
    counts[order[: num_images - int(counts.sum())]] += 1
    by_class = torch.split(labels_N.argsort(stable=True), torch.bincount(labels_N).tolist())
    chosen = [members[:count] for members, count in zip(by_class, counts.tolist(), strict=True)]
    return torch.cat(chosen).sort().values


def _limited_arrays(config: "DataConfig", part: Part) -> Arrays:
    read = DATASETS[config.dataset].arrays
    assert read is not None
    images_NHWC, labels_N = read(config, part)
    if part == "test":
        return images_NHWC, labels_N
    chosen = first_of_each_class(torch.from_numpy(labels_N.astype(np.int64)), config.max_train_images).numpy()
    return images_NHWC[chosen], labels_N[chosen]


def _limited_files(config: "DataConfig", part: Part, listing: Listing | None) -> FileList:
    files = (listing or list_images(config, [part]))[part]
    if part == "test" or config.max_train_images is None:
        return files
    kinds_N = files.labels_N
    if files.is_arch_N is not None:
        # Each list keeps its share, too.
        kinds_N = kinds_N + len(files.class_names) * files.is_arch_N
    return files.take(first_of_each_class(kinds_N, config.max_train_images))


def _fingerprint_memory(images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(str(images_NHWC.shape).encode())
    digest.update(images_NHWC.tobytes())
    digest.update(labels_N.tobytes())
    return digest.hexdigest()


def _fingerprint_files(files: FileList) -> str:
    columns = [files.paths, files.sizes_bytes_N.tolist(), files.labels_N.tolist()]
    if files.is_arch_N is not None:
        columns.append(files.is_arch_N.int().tolist())
    rows = ("\0".join(map(str, row)) for row in zip(*columns, strict=True))
    # File names may hold bytes that are no text.
    digest = hashlib.sha256("\n".join(rows).encode(errors="surrogateescape"))
    if len(set(files.sizes_bytes_N.tolist())) < _NUM_TELLING_SIZES:
        for index in range(0, len(files), max(math.ceil(len(files) / _NUM_READ_FILES), 1)):
            digest.update(hashlib.sha256(_start_of(files.path(index))).digest())
    return digest.hexdigest()


def _start_of(path: str) -> bytes:
    try:
        return read_file(path, "an image", num_bytes=_NUM_READ_BYTES)
    except UserError:
        # It is missing or cannot be read, which is for others to say or to skip.
        return b""
