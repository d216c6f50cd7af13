"""Networks that have a name: published architectures, and torchvision's, for comparison."""

import os
from pathlib import Path

from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.published_files import PUBLISHED_SUFFIX, load_published_architecture

BASELINE_NAMES = ("efficientnet_b0", "mobilenet_v3_large", "mobilenet_v2", "mnasnet1_0")
"""Networks that torchvision builds."""

ARCHITECTURE_NAMES = ("tf-nas-a",)
"""Architectures that come with the package."""

_ARCHITECTURES = Path(__file__).parent / "architectures"


def find_architecture(reference: str) -> Architecture | None:
    """The architecture of a file or of a name; None for a network of torchvision's.

    A file that ends in `.config` is a published one, see `load_published_architecture`.

    Raises:
        UserError: there is no such file or name, or the file is damaged.
    """
    if reference in BASELINE_NAMES:
        return None
    if reference in ARCHITECTURE_NAMES:
        return Architecture.load(_ARCHITECTURES / f"{reference}.json")
    if not os.path.lexists(reference):
        names = ", ".join((*ARCHITECTURE_NAMES, *BASELINE_NAMES))
        raise UserError(f"architecture: '{reference}': no such file; name one, or one of {names}")
    if Path(reference).suffix == PUBLISHED_SUFFIX:
        return load_published_architecture(reference)
    return Architecture.load(reference)
