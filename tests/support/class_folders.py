"""Class folders of small images for tests."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_class_folders(root: Path, names: tuple[str, ...], num_images: int, side: int = 30) -> Path:
    """Writes images of noise below `root/NAME/`, brighter from class to class, no two of them equal."""
    rng = np.random.default_rng(zlib.crc32(str(root).encode()))
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(num_images):
            pixels = rng.integers(0, 100 + 150 * label // len(names), (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    return root
