"""A data set: stripes that lie, stand, or lean."""

import numpy as np

from nas.data.datasets import DATASETS, Dataset
from nas.data.memory_images import Arrays, Part


def draw_stripes(config: object, part: Part) -> Arrays:
    """Images of 28x28 pixels, one channel; the same ones each time."""
    rng = np.random.default_rng(["train", "test"].index(part))
    labels_N = np.arange({"train": 90, "test": 30}[part]) % 3
    row, column = np.mgrid[:28, :28]
    angle = np.array([row, column, row + column])[labels_N]
    noise = rng.integers(0, 60, angle.shape)
    images_NHW = (angle // 3 % 2 * 180 + noise).astype(np.uint8)
    return images_NHW[..., np.newaxis], labels_N.astype(np.uint8)


DATASETS.register(
    "stripes",
    Dataset(("lying", "standing", "leaning"), arrays=draw_stripes, resolution=28, mean=(0.5,), std=(0.4,)),
)
