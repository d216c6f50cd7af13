"""Measure how fast image files are decoded and listed, against the plain way.

    python -m benchmarks.images
    python -m benchmarks.images --num-files 2000 --repeats 3

The plain way decodes with Pillow and applies torchvision's transforms to each image, color jitter
included, as the package did before. It lists files with pathlib. Both sides run in turn, in one process
and thread: what one worker does. The JPEGs have 500x375 pixels, quality 90 and the spectrum of photographs.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from benchmarks.machine import describe_machine, print_table
from nas.config import DataConfig
from nas.data.augmentation import JITTER, JITTER_HUE, draw_change
from nas.data.image_lists import IMAGE_SUFFIXES
from nas.data.image_source import list_images
from nas.data.image_tasks import DecodingTask, decode_batch

RESOLUTION = 224
NUM_CLASSES = 100
SIZE = (500, 375)
QUALITY = 90


def report_decoding(paths: Sequence[str], num_repeats: int) -> None:
    """Prints the time per image of a random and of a center view, and of the colors of a batch."""
    seeds = list(range(len(paths)))
    crop_and_colors = v2.Compose(
        [
            v2.RandomResizedCrop(RESOLUTION),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(JITTER, JITTER, JITTER, JITTER_HUE),
        ]
    )
    center = v2.Compose([v2.Resize(round(RESOLUTION * 256 / 224)), v2.CenterCrop(RESOLUTION)])
    rows = []
    for name, view, drawn in (("`paper`", crop_and_colors, seeds), ("evaluation", center, None)):
        times_s = time_in_turn(
            [
                lambda view=view: decode_plainly(paths, view),
                lambda drawn=drawn: decode_batch(DecodingTask(seeds, paths, RESOLUTION, drawn)),
            ],
            num_repeats,
        )
        rows.append([name, *describe(*times_s, len(paths))])
    print_table(["batches", "plain, images/s per worker", "ours, images/s per worker", "ratio"], rows)
    images_BHWC = decode_batch(DecodingTask(seeds, paths, RESOLUTION, seeds))
    assert not isinstance(images_BHWC, str)
    change = draw_change("paper", len(paths), RESOLUTION, torch.Generator().manual_seed(0))
    assert change is not None
    (jitter_s,) = time_in_turn([lambda: change.apply(images_BHWC, slice(len(paths)))], num_repeats)
    per_image_ms = 1000 * statistics.median(jitter_s) / len(paths)
    print(f"\nColors of a batch, on one thread of this CPU: {per_image_ms:.2f} ms per image", flush=True)


def report_listing(folder: Path, num_files: int, num_repeats: int) -> None:
    """Prints the time to list the files of class folders and of a text file."""
    write_tiny_files(folder, num_files)
    config = DataConfig(dataset="image_folder", data_dir=folder)
    times_s = time_in_turn(
        [lambda: list_plainly(folder), lambda: list_images(config, ["train"])], min(num_repeats, 5)
    )
    medians_s = [statistics.median(each) for each in times_s]
    print_table(
        [f"listing of {num_files:,} files", "plain, s", "ours, s", "ratio"],
        [["class folders", *(f"{each:.2f}" for each in medians_s), f"{medians_s[0] / medians_s[1]:.1f}x"]],
    )


def decode_plainly(paths: Sequence[str], view: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    """Decodes each image, upright and as RGB, and applies torchvision's transforms."""
    images = []
    for path in paths:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            images.append(torch.from_numpy(np.array(view(image))))
    return torch.stack(images)


def list_plainly(root: Path) -> list[tuple[str, int, int]]:
    """Relative path, label and size of each image in class folders."""
    return [
        (path.relative_to(root).as_posix(), label, os.stat(path).st_size)
        for label, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir()))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]


def time_in_turn(functions: Sequence[Callable[[], object]], num_repeats: int) -> list[list[float]]:
    """Seconds of each function in each repeat, after an unmeasured one."""
    times_s: list[list[float]] = [[] for _ in functions]
    for repeat in range(num_repeats + 1):
        for function, seconds in zip(functions, times_s, strict=True):
            start_s = time.perf_counter()
            function()
            if repeat:
                seconds.append(time.perf_counter() - start_s)
    return times_s


def describe(plain_s: list[float], ours_s: list[float], num: int) -> list[str]:
    """Images per second of both sides, and the ratio with its spread."""
    ratios = [plain / ours for plain, ours in zip(plain_s, ours_s, strict=True)]
    return [
        f"{num / statistics.median(plain_s):.0f}",
        f"{num / statistics.median(ours_s):.0f}",
        f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
    ]


def write_jpegs(folder: Path, num: int) -> list[str]:
    """Writes JPEGs whose amplitudes fall with spatial frequency, as those of photographs do."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    across, down = np.fft.rfftfreq(width), np.fft.fftfreq(height)
    frequencies = np.hypot(across[None, :], down[:, None])[..., None] + 1 / width
    paths = []
    for number in range(num):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1)) / frequencies
        pixels = np.fft.irfft2(spectrum, (height, width), axes=(0, 1))
        pixels = 127 + 55 * pixels / pixels.std()
        path = folder / f"{number}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        paths.append(str(path))
    return paths


def write_tiny_files(root: Path, num: int) -> None:
    """Fills class folders with names like ImageNet's; the files of a class are one on disk."""
    for label in range(NUM_CLASSES):
        folder = root / f"n{label:08}"
        folder.mkdir(parents=True)
        first = folder / f"n{label:08}_0.JPEG"
        first.write_bytes(b"x")
        for number in range(1, num // NUM_CLASSES):
            os.link(first, folder / f"n{label:08}_{number}.JPEG")


@click.command(help=__doc__)
@click.option("--num-images", default=32, show_default=True)
@click.option("--num-files", default=127_000, show_default=True)
@click.option("--repeats", default=15, show_default=True)
def main(num_images: int, num_files: int, repeats: int) -> None:
    """Prints Markdown tables."""
    torch.set_num_threads(1)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        report_decoding(write_jpegs(Path(folder), num_images), repeats)
        report_listing(Path(folder) / "listed", num_files, repeats)


if __name__ == "__main__":
    main()
