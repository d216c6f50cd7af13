"""Parts of a data set, and the batches of a part.

Shapes: B batch, C channels, H W space, N images, K chosen images.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation, child_generator, draw_change, normalize
from nas.data.datasets import DATASETS
from nas.data.image_source import Images
from nas.foundation.device import resolve_device, upload
from nas.foundation.errors import UserError
from nas.foundation.world import ALONE, World

if TYPE_CHECKING:
    from nas.config import SearchConfig, TrainConfig

Batch = tuple[Tensor, Tensor]
"""float32 images_BCHW (normalized, 3 channels, channels_last) and int64 labels_B, on the config's device."""


@dataclass(frozen=True)
class Split:
    """Some of the images of a data set, as batches.

    Attributes:
        world: if there are several processes, each gets its share of every batch. Together the shares
            are the batch that one process would get, except for rounding.
    """

    images: Images
    indices_K: Tensor
    config: "SearchConfig | TrainConfig"
    world: World = ALONE

    def __len__(self) -> int:
        return len(self.indices_K)

    def shuffled_batches(
        self,
        generator: Generator,
        *,
        augmentation: Augmentation,
        num_images: int | None = None,
        endless: bool = False,
    ) -> Iterator[Batch]:
        """Batches in random order, for one pass over the images, or endlessly.

        Draws once from the generator, when called. The batches depend neither on other draws from the
        generator nor on the number of worker processes.

        Args:
            num_images: how many images a pass has; None for as many as fill batches.
        """
        batch_size = self.config.batch_size
        if num_images is None:
            num_images = len(self) // batch_size * batch_size
        own = child_generator(generator)
        order = _shuffle(self.indices_K, num_images, batch_size, child_generator(own), endless)
        return self._batches(order, augmentation, own)

    def evaluation_batches(self) -> Iterator[Batch]:
        """All images once, not augmented, in an order that the config's seed alone determines.

        A supernet normalizes by the statistics of the batch, so its output for an image depends on the
        batch: the order mixes the classes, and the sizes of the batches differ by at most one. A process
        skips a batch if its share is empty.
        """
        order = torch.randperm(len(self), generator=Generator().manual_seed(self.config.seed))
        num_batches = max(math.ceil(len(self) / self.config.batch_size), 1)
        return self._batches(
            iter(torch.tensor_split(self.indices_K[order], num_batches)), "none", Generator()
        )

    def _batches(
        self, batch_indices: Iterator[Tensor], augmentation: Augmentation, generator: Generator
    ) -> Iterator[Batch]:
        dataset = DATASETS[self.config.dataset]
        device = resolve_device(self.config.device)
        mean_C, std_C = torch.tensor(dataset.mean, device=device), torch.tensor(dataset.std, device=device)
        # Workers read ahead, so what is drawn for them must not mix with what is drawn here.
        ahead, behind = itertools.tee(batch_indices)
        batches = self.images.batches(ahead, augmentation, child_generator(generator), self.world)
        for indices_B in behind:
            num = len(indices_B)
            change = draw_change(augmentation, num, self.images.resolution, generator)
            share = self.world.share(num)
            if share.start == share.stop:
                continue
            images_BHWC, labels_B = next(batches)
            # Images of files are copied as bytes, a quarter of the float32 size that a network sees.
            images_BHWC, labels_B = upload(images_BHWC, device), upload(labels_B, device)
            if change is not None:
                images_BHWC = change.apply(images_BHWC, share)
            yield normalize(images_BHWC, mean_C, std_C), labels_B


def split_by_class(
    labels_N: Tensor, num_classes: int, held_out_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Splits images at random so that both parts have the same share of each class.

    The share of a class is rounded to the nearest image, but each part gets at least one image.

    Returns:
        Indices of the remaining and of the held-out images, each ascending.

    Raises:
        UserError: a class has fewer than two images.
    """
    generator = Generator().manual_seed(seed)
    rest, held_out = [], []
    counts = torch.bincount(labels_N, minlength=num_classes).tolist()
    by_class = torch.split(labels_N.argsort(stable=True), counts)
    for label, (num_images, members) in enumerate(zip(counts, by_class, strict=True)):
        if num_images < 2:
            raise UserError(
                f"dataset: class {label} has {num_images} training images; the split needs at least 2"
            )
        num_held_out = min(max(round(num_images * held_out_fraction), 1), num_images - 1)
        members = members[torch.randperm(num_images, generator=generator)]
        held_out.append(members[:num_held_out])
        rest.append(members[num_held_out:])
    return torch.cat(rest).sort().values, torch.cat(held_out).sort().values


def check_batch_size(batch_size: int, num_images: int, purpose: str) -> None:
    """Checks that the images fill at least one batch.

    Raises:
        UserError: they do not.
    """
    if num_images < batch_size:
        raise UserError(
            f"batch_size: {batch_size}; only {num_images} images are there for {purpose}; "
            "use a smaller batch_size or more images"
        )


def _shuffle(
    indices_K: Tensor, num_images: int, batch_size: int, generator: Generator, endless: bool
) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(indices_K), generator=generator)[:num_images]
        yield from torch.split(indices_K[order], batch_size)
        if not endless:
            return
