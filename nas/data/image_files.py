"""Images in files, decoded while they are used, by worker processes if there are any.

Shapes: B batch, N images, H W space, C channels.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.image_decoding import why_broken
from nas.data.image_lists import FileList, refuse_file
from nas.data.image_tasks import DecodingTask, decode_batch, find_sound_files
from nas.data.worker_pool import WorkerPool
from nas.foundation.errors import SkippedImagesWarning
from nas.foundation.world import ALONE, World

_NUM_FILES_PER_CHECK = 64


class FileImages:
    """Image files as batches of a resolution, decoded by a pool of workers."""

    def __init__(self, files: FileList, resolution: int, pool: WorkerPool) -> None:
        self.files = files
        self.resolution = resolution
        self.labels_N = files.labels_N
        self._pool = pool

    def batches(
        self,
        batch_indices: Iterator[Tensor],
        augmentation: Augmentation,
        generator: Generator,
        world: World = ALONE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields uint8 images_BHWC and their labels: this process's share of each tensor of indices.

        Each sample has its own seed, drawn here for the whole batch, so the number of processes does not
        matter.

        Raises:
            UserError: a file cannot be decoded, or a worker process died.
        """
        tasks = self._tasks(batch_indices, augmentation, generator, world)
        for task, decoded in self._pool.map(decode_batch, tasks):
            if isinstance(decoded, str):
                raise refuse_file(decoded)
            yield decoded, self.labels_N[torch.tensor(task.indices)]

    def _tasks(
        self,
        batch_indices: Iterator[Tensor],
        augmentation: Augmentation,
        generator: Generator,
        world: World,
    ) -> Iterator[DecodingTask]:
        for indices_B in batch_indices:
            share = world.share(len(indices_B))
            indices, seeds = indices_B[share].tolist(), None
            if augmentation == "paper":
                seeds = torch.randint(2**62, (len(indices_B),), generator=generator)[share].tolist()
            if indices:
                yield DecodingTask(
                    indices, [self.files.path(index) for index in indices], self.resolution, seeds
                )


def without_broken_files(files: FileList, pool: WorkerPool, world: World = ALONE) -> FileList:
    """The files that can be decoded, with a warning if these are not all.

    Decodes every file; each process decodes its share.
    """
    share = range(len(files))[world.share(len(files))]
    paths = [files.path(index) for index in share]
    chunks = (
        paths[start : start + _NUM_FILES_PER_CHECK] for start in range(0, len(paths), _NUM_FILES_PER_CHECK)
    )
    is_sound = [sound for _, chunk in pool.map(find_sound_files, chunks) for sound in chunk]
    is_sound_N = torch.zeros(len(files), dtype=torch.uint8)
    is_sound_N[share.start : share.stop] = torch.tensor(is_sound, dtype=torch.uint8)
    is_sound_N = world.sum(is_sound_N)
    broken = (is_sound_N == 0).nonzero()[:, 0].tolist()
    if broken and world.is_first:
        warnings.warn(
            f"skip_broken_images: {len(broken)} of {len(files)} image files are left out, for instance "
            f"{why_broken(files.path(broken[0]))}",
            SkippedImagesWarning,
            stacklevel=3,
        )
    return files.take(is_sound_N.nonzero()[:, 0])
