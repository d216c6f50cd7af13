"""Batched augmentation against torchvision's, one sample at a time."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional

from nas.data import augmentation as augment
from nas.data.augmentation import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    child_generator,
    draw_change,
    normalize,
    resize,
    resized_crop_flip,
    shift_hue,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(num=6, side=16, channels=3):
    return torch.rand(num, side, side, channels, generator=seeded(9)) * 255


def per_sample(function, images_BHWC, factors_B):
    """Applies a torchvision function, which takes one factor and 0..1, to each sample."""
    images_BCHW = images_BHWC.permute(0, 3, 1, 2) / 255
    changed = [function(image, float(factor)) for image, factor in zip(images_BCHW, factors_B, strict=True)]
    return torch.stack(changed).permute(0, 2, 3, 1) * 255


@pytest.mark.parametrize(
    ("batched", "single", "low", "high"),
    [
        (adjust_brightness, functional.adjust_brightness, 0.6, 1.4),
        (adjust_contrast, functional.adjust_contrast, 0.6, 1.4),
        (adjust_saturation, functional.adjust_saturation, 0.6, 1.4),
        (shift_hue, functional.adjust_hue, -0.2, 0.2),
    ],
)
def test_colour_changes_agree_with_torchvision(batched, single, low, high):
    images = random_images()
    images[0] = images[0, ..., :1]  # gray, where hue has no meaning
    factors_B = torch.linspace(low, high, len(images))
    torch.testing.assert_close(
        batched(images, factors_B), per_sample(single, images, factors_B), rtol=0, atol=0.02
    )


@pytest.mark.parametrize("box", [(0, 0, 16, 16), (3, 5, 9, 4), (10, 0, 6, 16), (7, 7, 1, 1)], ids=str)
def test_resized_crop_agrees_with_torchvision(box, monkeypatch):
    images = random_images()
    top, left, height, width = box
    boxes = [torch.full((len(images),), float(number)) for number in box]
    monkeypatch.setattr(augment, "_draw_crops", lambda *_: boxes)
    monkeypatch.setattr(augment, "_maybe_flipped", lambda pixels_N, num, _: pixels_N.expand(num, -1))
    expected = functional.resized_crop(
        images.permute(0, 3, 1, 2), top, left, height, width, [16, 16], antialias=True
    )
    torch.testing.assert_close(
        resized_crop_flip(images, seeded()).permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-2
    )


def test_drawn_crops_lie_inside_and_have_the_published_areas_and_ratios():
    top, left, height, width = augment._draw_crops(20_000, 224, 224, seeded())
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 224).all()
    assert (left + width <= 224).all()
    area, ratio = height * width / 224**2, width / height
    assert area.min() > 0.07
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    # Uniform in area but for the crops that did not fit; the logarithm of the ratio is symmetric.
    assert 0.48 < area.mean() < 0.54
    assert abs(ratio.log().mean()) < 0.01
    small_area = area[area < 0.5]  # nearly every such crop fits at once
    assert abs(small_area.mean() - (0.08 + 0.5) / 2) < 0.01
    assert ratio.log().abs().max() <= math.log(4 / 3) + 0.03


def test_crop_flip_shows_windows_of_the_padded_image():
    images = torch.randint(256, (40, 16, 16, 3), dtype=torch.uint8, generator=seeded(1))
    cropped = draw_change("crop_flip", 40, 16, seeded()).apply(images, slice(40))
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    seen = set()
    for index, result in enumerate(cropped):
        windows = {
            (top, left, flip): window.flip(1) if flip else window
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for window in [padded[index, top : top + 16, left : left + 16]]
        }
        matches = [place for place, window in windows.items() if torch.equal(window, result)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15
    assert {flip for _, _, flip in seen} == {False, True}


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip", "none"])
def test_gray_images_stay_gray_and_keep_their_shape(augmentation):
    images = random_images(channels=1).byte()
    change = draw_change(augmentation, 6, 16, seeded())
    assert (change.apply(images, slice(6)) if change else images).shape == images.shape


def test_paper_augmentation_stays_within_the_range_of_pixels():
    images = draw_change("paper", 64, 16, seeded()).apply(random_images(64).byte(), slice(64))
    assert images.min() >= -1e-3
    assert images.max() <= 255 + 1e-3


def test_resize_agrees_with_torchvision():
    images = random_images().byte()
    expected = functional.resize(images.permute(0, 3, 1, 2), [12, 12], antialias=True)
    assert torch.equal(resize(images, 12).permute(0, 3, 1, 2), expected)
    assert resize(images, 16) is images


def test_normalize_agrees_with_torchvision():
    images = random_images().byte()
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    expected = functional.normalize(images.permute(0, 3, 1, 2).float() / 255, mean, std)
    torch.testing.assert_close(normalize(images, torch.tensor(mean), torch.tensor(std)), expected)


def test_child_generators_of_one_parent_differ():
    parent = seeded()
    first, second = child_generator(parent), child_generator(parent)
    assert not torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))


def test_color_jitter_agrees_with_torchvisions_functions_in_the_drawn_order():
    images = random_images(8).byte()
    for seed in range(4):
        jitter = draw_change("paper", 8, 16, seeded(seed))
        parts = [
            (functional.adjust_brightness, jitter.factors_3B[0]),
            (functional.adjust_contrast, jitter.factors_3B[1]),
            (functional.adjust_saturation, jitter.factors_3B[2]),
            (functional.adjust_hue, jitter.shift_B),
        ]
        expected = images.float()
        for part in jitter.order:
            expected = per_sample(parts[part][0], expected, parts[part][1])
        torch.testing.assert_close(jitter.apply(images, slice(8)), expected, rtol=0, atol=0.05)


def test_orders_and_factors_of_color_jitter_are_those_that_torchvision_draws():
    jitters = [draw_change("paper", 50, 16, seeded(seed)) for seed in range(200)]
    factors = torch.cat([jitter.factors_3B for jitter in jitters], 1)
    shifts = torch.cat([jitter.shift_B for jitter in jitters])
    assert 0.6 <= factors.min() < 0.605 < 1.395 < factors.max() <= 1.4
    assert -0.2 <= shifts.min() < -0.199 < 0.199 < shifts.max() <= 0.2
    assert len({tuple(jitter.order) for jitter in jitters}) == 24


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_a_batch_change_like_the_whole_batch(augmentation, channels):
    images = random_images(7, channels=channels).byte()
    change = draw_change(augmentation, 7, 16, seeded(2))
    whole = change.apply(images, slice(0, 7))
    parts = [change.apply(images[share], share) for share in (slice(0, 3), slice(3, 3), slice(3, 7))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_stay_on_the_device_of_the_images(augmentation, channels):
    """Operations on tensors of two devices raise, on the device without data as on a GPU."""
    images = torch.empty(7, 16, 16, channels, dtype=torch.uint8, device="meta")
    changed = draw_change(augmentation, 7, 16, seeded()).apply(images, slice(0, 7))
    assert changed.device.type == "meta"
    mean, std = (torch.empty(channels, device="meta") for _ in range(2))
    assert normalize(changed, mean, std).device.type == "meta"
