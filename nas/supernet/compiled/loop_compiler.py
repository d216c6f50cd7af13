"""How loops are compiled, and where the compiled code is kept."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numba
from numba.misc.appdirs import AppDirs

_ROOM = Path(__file__).parent


def compile_loop(function: Callable[..., Any]) -> Any:
    """Compiles a function when it is first called with arguments of these types.

    Sums may be reordered and contracted; NaN and infinity propagate.
    """
    # numba reads the folder right here; code that others compile keeps its own.
    with patch.object(numba.config, "CACHE_DIR", _CACHE_DIR):
        return numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)(
            function
        )


def _find_cache_dir() -> str:
    """The first writable folder for compiled code, with a subfolder for each state of this room.

    numba compares only the file of a function with what it has kept. When another file changes, it would
    reuse code that contains the old version of what the function calls; hence the subfolders.

    Raises:
        RuntimeError: no folder is writable.
    """
    sources = [*sorted(_ROOM.glob("*.py")), _ROOM.parent / "mixed_block.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    for base in _cache_places():
        folder = base / f"loops-{digest[:16]}"
        if _is_writable(folder):
            return str(folder)
    raise RuntimeError("no folder for compiled code is writable; set NUMBA_CACHE_DIR to one")


def _cache_places() -> Iterator[Path]:
    """Where compiled code may be kept, the best place first."""
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    yield _ROOM / "__pycache__"
    yield Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    own = Path(tempfile.gettempdir()) / f"tfnas-{os.getuid()}"
    if _is_writable(own) and _is_private(own):
        yield own


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_private(folder: Path) -> bool:
    """Whether nobody else can have put code into a folder of the shared temporary one."""
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return is_own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


_CACHE_DIR = _find_cache_dir()
