"""Work on image files that a worker process does: batches to decode, and files to check.

Shapes: B batch, H W space, C channels.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas.data.augmentation import CROP_RATIO, CROP_SCALE, NUM_CROP_TRIES
from nas.data.image_decoding import BrokenImageError, center_view, read_image, why_broken


class DecodingTask(NamedTuple):
    """B image files to decode.

    Attributes:
        indices: positions of the files in their list; not used to decode them.
        seeds: of the random crop and flip of each image; None for the center of each image.
    """

    indices: Sequence[int]
    paths: Sequence[str]
    resolution: int
    seeds: Sequence[int] | None


def decode_batch(task: DecodingTask) -> Tensor | str:
    """uint8 images_BHWC; or a line about the first file that cannot be decoded."""
    shape = (len(task.paths), task.resolution, task.resolution, 3)
    images_BHWC = np.empty(shape, np.uint8)
    for number, path in enumerate(task.paths):
        try:
            image = read_image(path)
        except BrokenImageError as error:
            return str(error)
        if task.seeds is None:
            images_BHWC[number] = np.asarray(center_view(image, task.resolution))
        else:
            images_BHWC[number] = random_view(image, task.resolution, task.seeds[number])
    return torch.from_numpy(images_BHWC)


def find_sound_files(paths: Sequence[str]) -> list[bool]:
    """Whether each file can be decoded."""
    return [why_broken(path) is None for path in paths]


def random_view(image: Image.Image, resolution: int, seed: int) -> NDArray[np.uint8]:
    """A random part of an image as pixels_HWC, flipped or not: torchvision's `RandomResizedCrop` and flip."""
    draws = random.Random(seed)
    cropped = image.crop(draw_box(*image.size, draws))
    pixels_HWC = np.asarray(cropped.resize((resolution, resolution), Image.Resampling.BILINEAR))
    return pixels_HWC[:, ::-1] if draws.random() < 0.5 else pixels_HWC


def draw_box(width: int, height: int, draws: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part: 8 % to 100 % of the area, ratio of sides 3/4 to 4/3.

    A part that does not fit is redrawn. After ten draws it is the largest center part with such a ratio.

    Source: torchvision, `RandomResizedCrop.get_params`.
    """
    low_ratio, high_ratio = CROP_RATIO
    for _ in range(NUM_CROP_TRIES):
        area = width * height * draws.uniform(*CROP_SCALE)
        ratio = math.exp(draws.uniform(math.log(low_ratio), math.log(high_ratio)))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = draws.randint(0, width - part_width), draws.randint(0, height - part_height)
            return left, top, left + part_width, top + part_height
    part_width, part_height = min(width, round(height * high_ratio)), min(height, round(width / low_ratio))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height
