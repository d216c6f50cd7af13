"""ChosenImages: the images that a person names for a new file, and what its protocol must know of them."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from experiments.cells.search_cell import SearchCell
from nas.config import SearchConfig
from nas.data.datasets import DATASETS
from nas.data.image_doubts import shorter_side
from nas.data.image_lists import Listing
from nas.foundation.errors import UserError
from nas.space.macro_space import SPACES

SUBSET = "subset"
FASHION_MNIST = "fashion-mnist"

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts its files."""

_SPACES = ("micro", "small32", "paper")
"""Spaces to choose from, in the order of their cost; the others are variants of these."""

_ABOUT_EQUAL = 0.1
"""Two spaces whose distances from the images (logarithms of ratios) differ less are equally good."""

_IDX_FILES = "train-images-idx3-ubyte*"


@dataclass(frozen=True)
class ChosenImages:
    """Images, and the space that suits their size.

    Attributes:
        fields: `dataset`, and `data_dir` if it needs one.
        num_classes: number of classes.
        listing: of image files; empty for images in memory.
        space: the one whose resolution is closest, the cheapest of several that are about as close.
    """

    fields: dict[str, Any]
    num_classes: int
    listing: Listing
    space: str

    @classmethod
    def find(cls, name: str) -> Self:
        """The bundled subset, the full Fashion-MNIST of Debian, or a folder.

        Args:
            name: `subset`, `fashion-mnist`, or the path of a folder with a folder per class, or with the
                files of Fashion-MNIST.

        Raises:
            UserError: there are no such images.
        """
        fields = _fields(name)
        try:
            config = SearchConfig(space="micro", target_latency_ms=1.0, **fields)
            listing = SearchCell.list_images(config)
            dataset = DATASETS[config.dataset]
            num_classes = dataset.count_classes(config)
        except UserError as error:
            raise UserError(f"--images: {error}") from None
        side = shorter_side(listing["train"]) if dataset.is_in_files else dataset.resolution
        return cls(fields, num_classes, listing, _closest_space(side))

    def count_weight_steps(self, fields: dict[str, Any]) -> int:
        """The number of weight steps of an epoch of a search with these fields.

        Raises:
            UserError: there are too few images.
        """
        try:
            config = SearchConfig(**fields, space=self.space, target_latency_ms=1.0)
            return SearchCell.count_weight_steps(config, self.listing)
        except UserError as error:
            raise UserError(f"--images: {error}") from None


def _fields(name: str) -> dict[str, Any]:
    if name == SUBSET:
        return {"dataset": "fashion_mnist_subset"}
    folder = DEBIAN_FOLDER if name == FASHION_MNIST else Path(os.path.expanduser(name)).resolve()
    if not folder.is_dir():
        remedy = (
            "install Debian's package dataset-fashion-mnist, or name the folder of its files"
            if name == FASHION_MNIST
            else f"give {SUBSET}, {FASHION_MNIST}, or a folder with a folder per class"
        )
        raise UserError(f"--images {name}: {folder}: no such folder; {remedy}")
    dataset = "fashion_mnist" if any(folder.glob(_IDX_FILES)) else "image_folder"
    return {"dataset": dataset, "data_dir": str(folder)}


def _closest_space(side: int | None) -> str:
    if side is None:
        return "paper"
    factors = {name: abs(math.log(SPACES[name].resolution / side)) for name in _SPACES}
    return next(name for name in _SPACES if factors[name] <= min(factors.values()) + _ABOUT_EQUAL)
