"""From the bytes of an image file to its pixels, and to what evaluation sees of them.

Shapes: H W space.
"""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.foundation.errors import UserError
from nas.foundation.files import read_file

if TYPE_CHECKING:
    from pathlib import Path

EVAL_MARGIN = 256 / 224
"""Ratio of the image's shorter side to the side of the center crop."""


class BrokenImageError(UserError):
    """A file is not an image, or not a complete one."""


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
