"""What a launch learns about the images of a cell before it starts, where the trials run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.config import DataConfig
from nas.data.datasets import DATASETS
from nas.data.image_doubts import shorter_side
from nas.data.image_lists import TEST_SHARE, Listing
from nas.foundation.escaping import escape_unprintable
from nas.space.macro_space import SPACES, get_space

_MAX_NAMES = 8

_MAX_FACTOR = 3
"""How much a space may enlarge or reduce images before a better one is named."""


@dataclass(frozen=True)
class ImageSurvey:
    """The images of a cell.

    Attributes:
        fingerprint: identifies them.
        description: data set, place, numbers and classes, in one line.
        doubts: what looks wrong and may be meant, a line each.
    """

    fingerprint: str
    description: str
    doubts: tuple[str, ...] = ()


def survey(
    config: DataConfig,
    listing: Listing,
    fingerprint: str,
    counts: Mapping[str, int],
    space: str | None = None,
) -> ImageSurvey:
    """Describes images that were found.

    Args:
        counts: numbers of images by their purpose.
        space: that a search uses; None for a training.
    """
    doubt = None if space is None else _doubt_about_space(config, listing, space)
    description = escape_unprintable(_describe(config, listing, counts))
    return ImageSurvey(fingerprint, description, (doubt,) if doubt else ())


def listed_counts(listing: Listing) -> dict[str, int]:
    """The numbers of images where broken ones are still to be found."""
    names = {"train": "training images at most", "test": "test images at most"}
    return {names[part]: len(files) for part, files in listing.items()}


def name_source(config: DataConfig) -> str:
    """The data set, and the folder that it is in."""
    return config.dataset if config.data_dir is None else f"{config.dataset} in {config.data_dir}"


def _describe(config: DataConfig, listing: Listing, counts: Mapping[str, int]) -> str:
    files = listing.get("train")
    num_classes = len(files.class_names) if files else DATASETS[config.dataset].count_classes(config)
    names = _some(files.class_names) if files else ""
    parts = [f"{number} {purpose}" for purpose, number in counts.items()]
    classes = f"{num_classes} classes{f' ({names})' if names else ''}"
    divided = f"; {TEST_SHARE:.0%} of each class are set apart as test images"
    return (
        f"{name_source(config)}: {', '.join(parts)}; {classes}{divided if files and files.is_divided else ''}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")


def _doubt_about_space(config: DataConfig, listing: Listing, space: str) -> str | None:
    """A doubt if another space suits the size of the images better."""
    files = listing.get("train")
    side = shorter_side(files) if files else DATASETS[config.dataset].resolution
    own = get_space(space).resolution
    if side is None or max(own / side, side / own) < _MAX_FACTOR:
        return None
    distances = {name: abs(math.log(SPACES[name].resolution / side)) for name in SPACES}
    best = [name for name in SPACES if distances[name] == min(distances.values())]
    if distances[best[0]] >= distances[space]:
        return None
    effect = "enlarges them, at a price" if own > side else "reduces them, so that details are lost"
    return (
        f"space: images are {side} pixels wide or high, and '{space}' {effect} ({own} pixels); spaces closer "
        f"to them: {', '.join(best)}"
    )
