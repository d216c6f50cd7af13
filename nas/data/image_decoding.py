"""From the bytes of an image file to the pixels of a batch.

Shapes: B batch, H W space, C channels.
"""

import io
import math
import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from nas.data.augmentation import CROP_RATIO, CROP_SCALE, NUM_CROP_TRIES
from nas.foundation.errors import UserError
from nas.foundation.files import read_file

if TYPE_CHECKING:
    from pathlib import Path

EVAL_MARGIN = 256 / 224
"""Ratio of the image's shorter side to the side of the center crop."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""


class BrokenImageError(UserError):
    """A file is not an image, or not a complete one."""


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


def why_broken(path: str) -> str | None:
    """A line about a file that cannot be decoded; None if it can."""
    try:
        read_image(path)
    except BrokenImageError as error:
        return str(error)
    return None


def read_image(path: "str | Path") -> Image.Image:
    """Decodes an image file completely, upright and as RGB, whatever its own color format is.

    Brightness is that of 8 bits: 16-bit integers are divided by 256; floats from 0 to 1 are multiplied by
    255. Floats, and integers of 32 bits, from 0 to 255 stay as they are; such integers up to 65535 count as
    16-bit ones.

    Raises:
        BrokenImageError: the file is missing, truncated or not an image, or its values have another range.
    """
    try:
        with warnings.catch_warnings():
            # Ignore warnings about odd metadata, and about transparency lost with a palette.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(read_file(path, "an image"))) as image:
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode == "RGB":
                    # Here, since nothing else may have read the pixels yet.
                    image.load()
                    return image
                if image.mode[0] in "IF":
                    return _to_8_bits(np.asarray(image)).convert("RGB")
                return image.convert("RGB")
    except _RangeError as error:
        raise BrokenImageError(
            f"{path}: pixel values {error}, whose scale is unknown; convert it to 8 bits per channel"
        ) from None
    except UserError as error:
        raise BrokenImageError(str(error)) from None
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"{path}: too many pixels ({error}); make it smaller") from None
    # Too little memory does not mean that the file is damaged.
    except MemoryError:
        raise
    # Decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception:
        raise BrokenImageError(f"{path}: not an image, or damaged") from None


class _RangeError(Exception):
    """Pixel values have a range without a known scale."""


def _to_8_bits(pixels_HW: NDArray[np.generic]) -> Image.Image:
    low, high = float(pixels_HW.min()), float(pixels_HW.max())
    kind, num_bytes = pixels_HW.dtype.kind, pixels_HW.dtype.itemsize
    if kind == "f" and low >= 0 and high <= 1:
        scale = 255.0
    elif num_bytes == 2 or (kind == "i" and low >= 0 and 255 < high <= 65535):
        scale = 1 / 256
    elif low >= 0 and high <= 255:
        scale = 1.0
    else:
        raise _RangeError(f"from {low:g} to {high:g}")
    # Integers are cut, as Pillow does; floats are rounded, since 0.2 * 255 is not quite 51.
    scaled_HW = pixels_HW.astype(np.float64) * scale + (0.5 if kind == "f" else 0)
    return Image.fromarray(scaled_HW.astype(np.uint8))


def center_view(image: Image.Image, resolution: int) -> Image.Image:
    """The view of an image in evaluation: shorter side 256/224 of the resolution, then a center crop.

    Differs from torchvision's `Resize` and `CenterCrop` by at most 1 of 255, but resamples only the crop,
    where they make 512,000x256 pixels of an image of 4000x2.
    """
    side = round(resolution * EVAL_MARGIN)
    shorter, longer = sorted(image.size)
    longer_side = int(side * longer / shorter)
    resized = (side, longer_side) if image.width <= image.height else (longer_side, side)
    # Rounded to pixels of the resized image, as torchvision does.
    left, top = (round((length - resolution) / 2) for length in resized)
    across, down = image.width / resized[0], image.height / resized[1]
    box = (left * across, top * down, (left + resolution) * across, (top + resolution) * down)
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR, box)


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
