"""Augmentation of a batch of images, all samples at once.

Every random number comes from the given generator, on the CPU, for the whole batch; the arithmetic runs on
the device of the images, for any part of the batch. The color and crop arithmetic is torchvision's, with one
set of random numbers per sample instead of one per call.

Shapes: B batch, H W space, C channels (1 or 3). Values are 0 to 255 until they are normalized.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from nas.foundation.device import upload

Augmentation = Literal["paper", "crop_flip", "none"]

NUM_CROP_TRIES = 10
CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
JITTER = 0.4
JITTER_HUE = 0.2
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)
_LEAST_CHROMA = 1e-20
"""Of a gray pixel, to divide by."""


def child_generator(generator: Generator) -> Generator:
    """A new generator, seeded by one draw from `generator`, so that consumers do not disturb each other."""
    return Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


class Change(Protocol):
    """A random change of a batch, drawn for the whole batch; keeps the shape."""

    def apply(self, images_BHWC: Tensor, share: slice) -> Tensor:
        """Changes images, on their device.

        Args:
            share: which samples of the whole batch these are.
        """


def draw_change(augmentation: Augmentation, num: int, resolution: int, generator: Generator) -> Change | None:
    """What an augmentation changes once images have the resolution; None for nothing.

    `paper` is random resized crop and horizontal flip, which give the resolution, and then color jitter.
    `crop_flip` pads by an eighth of the side, crops and flips.

    Args:
        num: number of samples of the whole batch.

    Source: TF-NAS, implementation details (`paper`).
    """
    if augmentation == "paper":
        return ColorJitter.draw(num, generator)
    if augmentation == "crop_flip":
        return PaddedCrop.draw(num, resolution, generator)
    return None


def resize(images_BHWC: Tensor, resolution: int) -> Tensor:
    """Resizes uint8 images to `resolution` x `resolution` pixels (bilinear, antialiased)."""
    if images_BHWC.shape[1:3] == (resolution, resolution):
        return images_BHWC
    images_BCHW = functional.interpolate(
        images_BHWC.permute(0, 3, 1, 2), (resolution, resolution), mode="bilinear", antialias=True
    )
    return images_BCHW.permute(0, 2, 3, 1)


def normalize(images_BHWC: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """Scales 0..255 to 0..1, subtracts the mean and divides by the standard deviation.

    Returns:
        float32 images_BCHW with 3 channels in channels_last memory; a single channel is repeated.
    """
    normal_BHWC = torch.addcmul(-mean_C / std_C, images_BHWC.float(), 1 / (255 * std_C))
    return normal_BHWC.expand(*images_BHWC.shape[:3], 3).contiguous().permute(0, 3, 1, 2)


@dataclass(frozen=True)
class PaddedCrop:
    """Pads with black by an eighth of the side, crops at random, and flips half of the samples.

    Attributes:
        rows_BH: which rows of the padded image are seen.
        columns_BW: which columns.
    """

    rows_BH: Tensor
    columns_BW: Tensor

    @classmethod
    def draw(cls, num: int, resolution: int, generator: Generator) -> "PaddedCrop":
        """Draws the windows of a batch."""
        pixels = torch.arange(resolution)
        top_B, left_B = torch.randint(2 * (resolution // 8) + 1, (2, num), generator=generator)
        return cls(
            top_B[:, None] + pixels.expand(num, -1), left_B[:, None] + _maybe_flipped(pixels, num, generator)
        )

    def apply(self, images_BHWC: Tensor, share: slice) -> Tensor:
        """See `Change`."""
        device, padding = images_BHWC.device, images_BHWC.shape[1] // 8
        padded_BHWC = functional.pad(images_BHWC, (0, 0, padding, padding, padding, padding))
        samples_B = torch.arange(len(images_BHWC), device=device)
        rows_BH, columns_BW = upload(self.rows_BH[share], device), upload(self.columns_BW[share], device)
        return padded_BHWC[samples_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]


def resized_crop_flip(images_BHWC: Tensor, generator: Generator) -> Tensor:
    """Crops a random area and aspect ratio, resizes to the full size, and flips half of the samples.

    The area is 8 % to 100 %, the ratio 3/4 to 4/3. A crop that does not fit is redrawn; after ten draws
    the whole image is used.
    """
    num, height, width, _ = images_BHWC.shape
    top_B, left_B, crop_height_B, crop_width_B = _draw_crops(num, height, width, generator)
    rows_BH = _sample_places(top_B, crop_height_B, torch.arange(height).expand(num, -1))
    columns_BW = _sample_places(left_B, crop_width_B, _maybe_flipped(torch.arange(width), num, generator))
    grid_BHW2 = torch.empty(num, height, width, 2)
    grid_BHW2[..., 0] = (2 * columns_BW / (width - 1) - 1)[:, None, :]
    grid_BHW2[..., 1] = (2 * rows_BH / (height - 1) - 1)[:, :, None]
    cropped_BCHW = functional.grid_sample(images_BHWC.permute(0, 3, 1, 2), grid_BHW2, align_corners=True)
    return cropped_BCHW.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast and saturation (factors 0.6 to 1.4), and hue (by up to a fifth).

    Gray images have neither saturation nor hue.

    Attributes:
        order: of the four parts, drawn once per batch.
        factors_3B: of brightness, contrast and saturation.
        shift_B: of the hue, as a fraction of the color circle.
    """

    order: list[int]
    factors_3B: Tensor
    shift_B: Tensor

    @classmethod
    def draw(cls, num: int, generator: Generator) -> "ColorJitter":
        """Draws the changes of a batch."""
        factors_3B = 1 + JITTER * (2 * torch.rand(3, num, generator=generator) - 1)
        shift_B = JITTER_HUE * (2 * torch.rand(num, generator=generator) - 1)
        return cls(torch.randperm(4, generator=generator).tolist(), factors_3B, shift_B)

    def apply(self, images_BHWC: Tensor, share: slice) -> Tensor:
        """See `Change`; returns float32."""
        factors_3B = upload(self.factors_3B[:, share], images_BHWC.device)
        shift_B = upload(self.shift_B[share], images_BHWC.device)
        images_BHWC = _with_planes(images_BHWC)
        has_color = images_BHWC.shape[-1] == 3
        for part in self.order:
            if part == 0:
                images_BHWC = adjust_brightness(images_BHWC, factors_3B[0])
            elif part == 1:
                images_BHWC = adjust_contrast(images_BHWC, factors_3B[1])
            elif part == 2 and has_color:
                images_BHWC = adjust_saturation(images_BHWC, factors_3B[2])
            elif part == 3 and has_color:
                images_BHWC = shift_hue(images_BHWC, shift_B)
        return images_BHWC


def adjust_brightness(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Blends each image with black."""
    return (images_BHWC * _per_sample(factor_B)).clamp_(0, 255)


def adjust_contrast(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Blends each image with the mean of its gray values."""
    mean_B111 = _to_gray(images_BHWC).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean_B111, images_BHWC, _per_sample(factor_B)).clamp_(0, 255)


def adjust_saturation(images_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Blends each image with its gray image."""
    return torch.lerp(_to_gray(images_BHWC), images_BHWC, _per_sample(factor_B)).clamp_(0, 255)


def shift_hue(images_BHWC: Tensor, shift_B: Tensor) -> Tensor:
    """Rotates the hue by a fraction of the color circle, -0.5 to 0.5; value and chroma stay."""
    red, green, blue = images_BHWC.unbind(-1)
    value_BHW = torch.maximum(torch.maximum(red, green), blue)
    low_BHW = torch.minimum(torch.minimum(red, green), blue)
    chroma_BHW = value_BHW - low_BHW
    inverse_BHW = chroma_BHW.clamp_min(_LEAST_CHROMA).reciprocal_()
    sixths_BHW = torch.where(
        value_BHW == red,
        green - blue,
        torch.where(value_BHW == green, (blue - red).add_(chroma_BHW, alpha=2), red - green + 4 * chroma_BHW),
    ).mul_(inverse_BHW)
    sixths_BHW = sixths_BHW.add_(6 * shift_B[:, None, None]).remainder_(6)
    shares_BHW = (
        (sixths_BHW - 3).abs_().sub_(1),
        2 - (sixths_BHW - 2).abs_(),
        2 - (sixths_BHW - 4).abs_(),
    )
    planes_BHW = [torch.addcmul(low_BHW, share.clamp_(0, 1), chroma_BHW) for share in shares_BHW]
    return torch.stack(planes_BHW, 1).permute(0, 2, 3, 1)


def _draw_crops(num: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    size = (num, NUM_CROP_TRIES)
    area = height * width * torch.empty(size).uniform_(*CROP_SCALE, generator=generator)
    log_ratio = [math.log(ratio) for ratio in CROP_RATIO]
    ratio = torch.empty(size).uniform_(*log_ratio, generator=generator).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first_B1 = fits.int().argmax(1, keepdim=True)
    any_fits_B = fits.any(1)
    crop_height_B = torch.where(any_fits_B, heights.gather(1, first_B1)[:, 0], height)
    crop_width_B = torch.where(any_fits_B, widths.gather(1, first_B1)[:, 0], width)
    place_2B = torch.rand(2, num, generator=generator)
    top_B = (place_2B[0] * (height - crop_height_B + 1)).floor()
    left_B = (place_2B[1] * (width - crop_width_B + 1)).floor()
    return top_B, left_B, crop_height_B, crop_width_B


def _sample_places(start_B: Tensor, length_B: Tensor, pixels_BN: Tensor) -> Tensor:
    """Position in the image of each output pixel: pixel centers, never beyond the edge of the crop."""
    start_B1, length_B1 = start_B[:, None], length_B[:, None]
    places_BN = start_B1 + (pixels_BN + 0.5) * length_B1 / pixels_BN.shape[1] - 0.5
    return torch.minimum(torch.maximum(places_BN, start_B1), start_B1 + length_B1 - 1)


def _maybe_flipped(pixels_N: Tensor, num: int, generator: Generator) -> Tensor:
    is_flipped_B = torch.rand(num, generator=generator) < 0.5
    return torch.where(is_flipped_B[:, None], pixels_N.flip(0), pixels_N)


def _to_gray(images_BHWC: Tensor) -> Tensor:
    if images_BHWC.shape[-1] == 1:
        return images_BHWC
    red, green, blue = images_BHWC.unbind(-1)
    of_red, of_green, of_blue = GRAY_WEIGHTS
    return (of_red * red).add_(green, alpha=of_green).add_(blue, alpha=of_blue)[..., None]


def _with_planes(images_BHWC: Tensor) -> Tensor:
    """The same as float32, with each channel contiguous in memory: three times faster to change on a CPU."""
    return images_BHWC.permute(0, 3, 1, 2).contiguous().float().permute(0, 2, 3, 1)


def _per_sample(factor_B: Tensor) -> Tensor:
    return factor_B[:, None, None, None]
