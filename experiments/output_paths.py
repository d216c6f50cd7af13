"""Checks, before any work, that a command can write where it was asked to."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from nas.foundation.errors import UserError


def check_output_folder(folder: Path, option: str) -> None:
    """Checks that a folder exists or can be made, and can be written to; leaves nothing behind.

    Args:
        option: that named the folder, for the error.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    try:
        _try_to_write(folder)
    except OSError as error:
        raise UserError(
            f"{option}: {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from None


def check_output_file(path: Path, option: str, *, makes_folder: bool = False) -> None:
    """Checks that a file can be written; leaves nothing behind, and an earlier file as it is.

    Args:
        option: that named the file, for the error.
        makes_folder: whether the command makes the folder of the file.

    Raises:
        UserError: its folder is missing or cannot be written to, or no file can have its name.
    """
    if not makes_folder and not os.path.isdir(path.parent):
        raise UserError(
            f"{option}: {path}: there is no folder {path.parent}; create it, or choose another file"
        )
    if os.path.isdir(path):
        raise UserError(f"{option}: {path}: is a folder; choose another file")
    try:
        _try_to_write(path.parent)
        # What `write_atomically` writes first has the longest name; too long a name is an error here.
        path.with_name(f"{path.name}.partial").exists()
    except OSError as error:
        raise UserError(
            f"{option}: {path}: cannot write it ({error.strerror}); choose another file"
        ) from None


def _try_to_write(folder: Path) -> None:
    """Tries, because permissions do not tell: root may write anywhere but to `/proc`, or to a full disk."""
    # `os.path.exists`, unlike that of `Path`, is also False for a name that is too long.
    missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    finally:
        for each in missing:
            # Not there, or another process has written into it since.
            with suppress(OSError):
                each.rmdir()
