"""What looks wrong about the files of a data set, and may be meant: copies, and parts taken for classes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from PIL import Image

from nas.data.image_lists import FileList, Listing
from nas.data.memory_images import Part
from nas.foundation.errors import UserError
from nas.foundation.files import read_file

MAX_COMPARED_BYTES = 1_000_000_000
"""Files of equal size are compared if they are not more than this in all: reading them takes seconds."""

_NUM_MEASURED_FILES = 32


def find_doubts(listing: Listing) -> list[str]:
    """What a person should look at before images are used, one line each; decodes no image.

    Images that are there several times are found by content, also under different names. Files of a size of
    their own are not read; nor is any, if there would be more than `MAX_COMPARED_BYTES` to read.
    """
    return [
        *_doubts_about_copies(listing),
        *_doubts_about_classes(listing),
        *_doubts_about_names(listing),
    ]


def shorter_side(files: FileList) -> int | None:
    """Median of the shorter sides of a few images, in pixels, by their headers; None if none can be read."""
    step = max(len(files) // _NUM_MEASURED_FILES, 1)
    sides = []
    for index in range(0, len(files), step):
        try:
            with Image.open(files.path(index)) as image:
                sides.append(min(image.size))
        # Broken files are named or skipped when images are decoded. Decoders raise almost anything.
        except Exception:
            continue
    return round(median(sides)) if sides else None


class _Place(NamedTuple):
    """Where an image is."""

    part: Part
    label: int
    path: str


class _Kind(NamedTuple):
    """A kind of copies: they differ in a field of their places; and why that matters."""

    field: str
    what: str
    why: str


_KINDS = (
    _Kind("part", "copies of training images among the test images", "test accuracy would be too high"),
    _Kind("label", "copies of images in other classes", "no network can learn them"),
    _Kind("path", "copies of images", "both sides of a split may get them"),
)
"""The most harmful first; copies count once."""


def _doubts_about_copies(listing: Listing) -> Iterator[str]:
    examples: dict[_Kind, list[tuple[str, str]]] = defaultdict(list)
    for first, *others in _find_copies(listing):
        kind, other = next(
            (kind, other)
            for kind in _KINDS
            for other in others
            if getattr(other, kind.field) != getattr(first, kind.field)
        )
        examples[kind].append((first.path, other.path))
    for kind in _KINDS:
        if pairs := examples[kind]:
            yield (
                f"data_dir: {kind.what}: {len(pairs)}, for instance {' and '.join(pairs[0])}; {kind.why}, so "
                "remove the copies"
            )


def _find_copies(listing: Listing) -> list[list[_Place]]:
    """Groups of images of equal content."""
    sizes_bytes = [size for files in listing.values() for size in files.sizes_bytes_N.tolist() if size > 0]
    shared = {size: number for size, number in Counter(sizes_bytes).items() if number > 1}
    if sum(size * number for size, number in shared.items()) > MAX_COMPARED_BYTES:
        return []
    candidates = [
        _Place(part, label, files.path(index))
        for part, files in listing.items()
        for index, (label, size) in enumerate(
            zip(files.labels_N.tolist(), files.sizes_bytes_N.tolist(), strict=True)
        )
        if size in shared
    ]
    of_content: dict[bytes, list[_Place]] = defaultdict(list)
    for place in candidates:
        try:
            content = read_file(place.path, "an image")
        except UserError:
            # Decoding will name it, or skip it.
            continue
        of_content[hashlib.sha256(content).digest()].append(place)
    return [places for places in of_content.values() if len(places) > 1]


def _doubts_about_classes(listing: Listing) -> Iterator[str]:
    """A doubt if all class folders hold the same subfolders, as the parts of a data set do."""
    for files in listing.values():
        if not files.is_divided:
            return
        of_class: dict[str, set[str]] = defaultdict(set)
        for path in files.paths:
            name, *below = path.split("/")
            of_class[name].add(below[0] if len(below) > 1 else "")
        first, *others = of_class.values()
        if len(first) > 1 and "" not in first and all(folders == first for folders in others):
            yield (
                f"data_dir: all of its classes ({_some(files.class_names)}) hold the same folders "
                f"({_some(sorted(first))}); if those are the classes, arrange it as train/CLASS/* and "
                "test/CLASS/*"
            )
            return


def _doubts_about_names(listing: Listing) -> Iterator[str]:
    """A doubt if two classes have one name but for capital letters."""
    names: dict[str, set[str]] = defaultdict(set)
    for files in listing.values():
        for name in files.class_names:
            names[name.casefold()].add(name)
    for same in names.values():
        if len(same) > 1:
            yield (
                f"data_dir: classes {' and '.join(sorted(same))} differ in capital letters only; if they are "
                "one, put their images into one folder"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
