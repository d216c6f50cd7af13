"""Images in memory, as batches at a given resolution.

Shapes: N images, H W space, C channels.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation, resize, resized_crop_flip
from nas.foundation.world import ALONE, World

Part = Literal["train", "test"]

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""images_NHWC (C is 1 or 3) and labels_N."""


class MemoryImages:
    """Images in memory, as batches at a given resolution."""

    def __init__(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.uint8], resolution: int) -> None:
        self.images_NHWC = torch.from_numpy(images_NHWC)
        self.labels_N = torch.from_numpy(labels_N.astype(np.int64))
        self.resolution = resolution

    def batches(
        self,
        batch_indices: Iterator[Tensor],
        augmentation: Augmentation,
        generator: Generator,
        world: World = ALONE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images_BHWC (0 to 255) and their labels: this process's share of each batch.

        With `paper`, they are randomly cropped and flipped. Random numbers are drawn for the whole batch, so
        each process crops all of it.
        """
        for indices_B in batch_indices:
            images_BHWC = resize(self.images_NHWC[indices_B], self.resolution)
            if augmentation == "paper":
                images_BHWC = resized_crop_flip(images_BHWC.float(), generator)
            share = world.share(len(indices_B))
            if share.start < share.stop:
                yield images_BHWC[share], self.labels_N[indices_B[share]]
