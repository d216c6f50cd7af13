"""Single image files: color formats, bit depths, and the views of an image against torchvision's."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nas.data.image_decoding import BrokenImageError, center_view, read_image
from nas.data.image_tasks import draw_box, random_view

SIZES = [(500, 375), (375, 500), (256, 256), (640, 427), (225, 800), (1000, 700), (30, 40), (3, 100)]


def make_image(size):
    rng = np.random.default_rng(size[0])
    # Edges as well as noise.
    rows, columns = np.mgrid[: size[1], : size[0]]
    stripes = (rows // 7 + columns // 11) % 2 * 120
    pixels = stripes[..., None] + rng.integers(0, 120, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def write_gray(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"), ("RGBA", "a.png"), ("1", "a.png")]
)
def test_images_that_are_not_rgb_are_converted(tmp_path, mode, name):
    make_image((40, 30)).convert(mode).save(tmp_path / name)
    assert read_image(tmp_path / name).mode == "RGB"


def test_rotated_images_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    make_image((40, 30)).save(tmp_path / "a.png", exif=exif)
    upright = make_image((40, 30)).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(upright))


def test_an_image_of_too_many_pixels_is_refused_as_such(tmp_path, monkeypatch):
    make_image((40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenImageError, match="too many pixels"):
        read_image(tmp_path / "large.png")


LEVELS = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_keeps_its_brightness(tmp_path, suffix):
    path = write_gray(tmp_path / f"a.{suffix}", (LEVELS * 257).astype(np.uint16))
    assert np.array_equal(np.asarray(read_image(path))[..., 1], LEVELS)


def write_big_endian(path, pixels):
    """A TIFF of one strip, as ImageJ writes it; Pillow itself writes little-endian files only."""
    height, width = pixels.shape
    content = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries = [
        *((256, width), (257, height), (258, 8 * pixels.dtype.itemsize), (259, 1), (262, 1)),
        *((273, 8), (277, 1), (278, height), (279, len(content)), (339, sample_format)),
    ]
    # Tag, type (32 bits), count, value.
    rows = b"".join(
        tag.to_bytes(2, "big") + b"\0\4" + b"\0\0\0\1" + value.to_bytes(4, "big") for tag, value in entries
    )
    start = (8 + len(content)).to_bytes(4, "big")
    path.write_bytes(b"MM\0*" + start + content + len(entries).to_bytes(2, "big") + rows + b"\0\0\0\0")
    return path


@pytest.mark.parametrize(
    "pixels",
    [
        (LEVELS * 257).astype(np.uint16),
        (LEVELS * 257).astype(np.int32),
        LEVELS.astype(np.int32),
        LEVELS.astype(np.float32),
        (LEVELS / 255).astype(np.float32),
    ],
    ids=["16 bits", "32 bits to 65535", "32 bits to 255", "float to 255", "float to 1"],
)
@pytest.mark.parametrize("write", [write_gray, write_big_endian])
def test_tiffs_of_either_byte_order_keep_their_brightness(tmp_path, pixels, write):
    image = read_image(write(tmp_path / "a.tif", pixels))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image)[..., 0], LEVELS)


@pytest.mark.parametrize(
    ("value", "values"),
    [(300.0, "from 0 to 300"), (-0.5, "from -0.5 to 0"), (math.nan, "from nan to nan"), (math.inf, "to inf")],
)
def test_floats_of_an_unknown_scale_are_refused_in_one_line_with_their_range(tmp_path, value, values):
    pixels = np.zeros((8, 8), np.float32)
    pixels[3, 4] = value
    path = write_gray(tmp_path / "a.tif", pixels)
    with pytest.raises(BrokenImageError) as caught:
        read_image(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert values in line
    assert "convert it" in line
    assert "\n" not in line


@pytest.mark.parametrize("value", [-1, 70000])
def test_32_bit_integers_beyond_16_bits_are_refused(tmp_path, value):
    with pytest.raises(BrokenImageError, match=str(value)):
        read_image(write_gray(tmp_path / "a.tif", np.full((8, 8), value, np.int32)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resolution", [24, 32, 224])
def test_center_view_agrees_with_torchvision_to_one_gray_level(size, resolution):
    image = make_image(size)
    side = round(resolution * 256 / 224)
    expected = v2.Compose([v2.Resize(side), v2.CenterCrop(resolution)])(image)
    difference = np.asarray(center_view(image, resolution)).astype(int) - np.asarray(expected)
    assert abs(difference).max() <= 1


def test_views_of_a_strip_of_4000_by_2_pixels_take_little_memory():
    script = (
        "import resource\n"
        "from PIL import Image\n"
        "from nas.data.image_decoding import center_view\n"
        "from nas.data.image_tasks import random_view\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for size in ((4000, 2), (2, 4000)):\n"
        "    assert center_view(Image.new('RGB', size), 224).size == (224, 224)\n"
        "    assert random_view(Image.new('RGB', size), 224, 0).shape == (224, 224, 3)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 20_000  # KiB; the resized strip alone would be 400 MB


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_random_view_is_torchvisions_resized_crop_of_the_drawn_box(size):
    image = make_image(size)
    for seed in range(6):
        left, top, right, bottom = draw_box(*size, random.Random(seed))
        expected = np.asarray(functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32]))
        shown = random_view(image, 32, seed)
        assert np.array_equal(shown, expected) or np.array_equal(shown, expected[:, ::-1])


def test_half_of_the_random_views_are_flipped():
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(256, 0).repeat(3, 2))
    shown = [random_view(image, 16, seed) for seed in range(400)]
    num_flipped = sum(int(pixels[8, 0, 0]) > int(pixels[8, -1, 0]) for pixels in shown)
    assert 160 < num_flipped < 240  # four standard deviations


def test_drawn_boxes_have_the_distribution_of_torchvisions():
    """Means of area, ratio and place; each bound is four standard errors of the difference."""
    draws = random.Random(0)
    ours = np.array([draw_box(500, 375, draws) for _ in range(4000)], float)
    torch.manual_seed(0)
    crop, image = v2.RandomResizedCrop(8), torch.zeros(3, 375, 500)
    params = [crop.make_params([image]) for _ in range(4000)]
    theirs = np.array(
        [[p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]] for p in params], float
    )

    def features(boxes):
        left, top, right, bottom = boxes.T
        width, height = right - left, bottom - top
        return np.stack([width * height, np.log(width / height), left, top, width, (left == 0) + 0.0])

    one, other = features(ours), features(theirs)
    error = np.sqrt((one.var(1) + other.var(1)) / 4000)
    assert (abs(one.mean(1) - other.mean(1)) < 4 * error).all()
    left, top, right, bottom = ours.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 500
    assert bottom.max() <= 375


@pytest.mark.parametrize("size", [(4000, 2), (2, 4000), (1, 1), (5000, 1), (300, 20)], ids=str)
def test_boxes_of_narrow_images_are_torchvisions_center_crops(size):
    expected = v2.RandomResizedCrop(8, scale=(2.0, 2.0)).make_params([torch.zeros(3, size[1], size[0])])

    class TooLarge(random.Random):
        def uniform(self, low, high):
            return 2.0 if high == 1.0 else 0.0

    left, top, right, bottom = draw_box(*size, TooLarge(0))
    assert (left, top) == (expected["left"], expected["top"])
    assert (right - left, bottom - top) == (expected["width"], expected["height"])
