"""Images in files, decoded while they are used, in worker processes if the config asks for them.

Shapes: B batch, N images, H W space, C channels.
"""

import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.augmentation import JITTER, JITTER_HUE, Augmentation, child_generator
from nas.data.image_lists import FileList, refuse_file
from nas.foundation.errors import UserError
from nas.foundation.files import read_file
from nas.foundation.world import ALONE, World

if TYPE_CHECKING:
    from torchvision.transforms import v2

EVAL_MARGIN = 256 / 224
"""Ratio of the image's shorter side to the side of the center crop."""


class BrokenImageError(UserError):
    """A file is not an image, or not a complete one."""


def read_image(path: Path) -> Image.Image:
    """Decodes an image file completely, upright and as RGB, whatever its own color format is.

    Raises:
        BrokenImageError: the file is missing, truncated or not an image.
    """
    try:
        with warnings.catch_warnings():
            # Ignore warnings about odd metadata, and about transparency lost with a palette.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(read_file(path, "an image"))) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):
                    upright = upright.point(lambda value: value / 256, "L")
                return upright.convert("RGB")
    except UserError as error:
        raise BrokenImageError(str(error)) from None
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"{path}: too many pixels ({error}); make it smaller") from None
    # Decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception:
        raise BrokenImageError(f"{path}: not an image, or damaged") from None


def eval_view(resolution: int) -> "v2.Transform":
    """The view of an image in evaluation: shorter side 256/224 of the resolution, then a center crop."""
    # Imported here: torchvision takes seconds to import, and images in memory do not need it.
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(resolution * EVAL_MARGIN)), v2.CenterCrop(resolution)])


def _view(augmentation: Augmentation, resolution: int) -> "v2.Transform":
    """The augmentation of `nas.data.augmentation.augment` by torchvision, for a single image."""
    from torchvision.transforms import v2

    if augmentation == "paper":
        return v2.Compose(
            [
                v2.RandomResizedCrop(resolution),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(JITTER, JITTER, JITTER, JITTER_HUE),
            ]
        )
    if augmentation == "crop_flip":
        crop = v2.RandomCrop(resolution, padding=resolution // 8)
        return v2.Compose([eval_view(resolution), crop, v2.RandomHorizontalFlip()])
    return eval_view(resolution)


class FileImages:
    """Image files as batches of a resolution, decoded in `num_workers` processes."""

    def __init__(self, files: FileList, resolution: int, num_workers: int) -> None:
        self.files = files
        self.resolution = resolution
        self.num_workers = num_workers
        self.labels_N = torch.tensor(files.labels)

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
            UserError: a file cannot be decoded.
        """
        # The loader reads ahead, so its draws must not mix with those of others.
        keys = _with_seeds(batch_indices, child_generator(generator))
        shares = (batch[world.share(len(batch))] for batch in keys)
        for decoded in self._load(_view(augmentation, self.resolution), filter(None, shares)):
            if isinstance(decoded, str):
                raise refuse_file(decoded)
            images_BHWC, indices_B = decoded
            yield images_BHWC, self.labels_N[indices_B]

    def _load(self, view: "v2.Transform", keys: Iterable[list["Key"]]) -> Iterator["Decoded"]:
        loader: Iterable[Decoded] = DataLoader(
            _Decoder(self.files, view),
            batch_sampler=keys,
            num_workers=self.num_workers,
            collate_fn=_collate,
            # Without its own generator, the loader would draw from the global one.
            generator=Generator(),
        )
        return iter(loader)


Key = tuple[int, int]
Decoded = tuple[Tensor, Tensor] | str


class _Decoder(Dataset[tuple[Tensor, int] | str]):
    """Maps (index, seed) to an image, or to a line about the problem of its file."""

    def __init__(self, files: FileList, view: "v2.Transform") -> None:
        self.files = files
        self.view = view

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | str:
        index, seed = key
        try:
            image = read_image(self.files.path(index))
        except BrokenImageError as error:
            return str(error)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the GPU's generator as well.
            torch.default_generator.manual_seed(seed)
            return torch.from_numpy(np.array(self.view(image))), index


class _Checker(Dataset[bool]):
    """Maps an index to whether its file can be decoded."""

    def __init__(self, files: FileList) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> bool:
        try:
            read_image(self.files.path(index))
        except BrokenImageError:
            return False
        return True


def find_sound_files(files: FileList, num_workers: int, world: World = ALONE) -> list[int]:
    """Indices of the files that can be decoded. Decodes every file; each process decodes its share."""
    share = range(len(files))[world.share(len(files))]
    loader = DataLoader(
        _Checker(files),
        batch_size=64,
        sampler=share,
        num_workers=num_workers,
        collate_fn=list,
        generator=Generator(),
    )
    is_sound_N = torch.zeros(len(files), dtype=torch.uint8)
    for index, sound in zip(share, (sound for batch in loader for sound in batch), strict=True):
        is_sound_N[index] = sound
    sound_indices: list[int] = world.sum(is_sound_N).nonzero()[:, 0].tolist()
    return sound_indices


def _with_seeds(batch_indices: Iterator[Tensor], generator: Generator) -> Iterator[list[Key]]:
    for indices_B in batch_indices:
        seeds_B = torch.randint(2**62, (len(indices_B),), generator=generator)
        yield list(zip(indices_B.tolist(), seeds_B.tolist(), strict=True))


def _collate(samples: list[tuple[Tensor, int] | str]) -> Decoded:
    images, indices = [], []
    for sample in samples:
        if isinstance(sample, str):
            return sample
        images.append(sample[0])
        indices.append(sample[1])
    return torch.stack(images), torch.tensor(indices)
