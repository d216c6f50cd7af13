"""Reading files that a user named (regular files of bounded size only), and writing files atomically."""

import io
import os
import stat
import zipfile
from pathlib import Path

from nas.foundation.errors import UserError

MAX_BYTES = 1_000_000_000


def read_file(
    path: str | Path, what: str, max_bytes: int = MAX_BYTES, *, num_bytes: int | None = None
) -> bytes:
    """Reads a whole file. Never waits for a pipe, and never reads an endless device.

    Args:
        what: what the file should hold, for the error; for instance `an architecture`.
        max_bytes: largest size accepted.
        num_bytes: how many bytes to read, from the start; None for all.

    Raises:
        UserError: the file is missing, unreadable, not a regular file, or too large.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: cannot read {what}: it is a pipe or a device; name a file")
            if status.st_size > max_bytes:
                raise UserError(
                    f"{path}: cannot read {what}: larger than {max_bytes:,} bytes; name another file"
                )
            return file.read(num_bytes)
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror}; check the path") from None
    # No file can have this path: it contains a NUL, or half a surrogate pair.
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot read {what}: no file can have that name; check the path") from None


def read_text(path: str | Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """Reads a whole text file, without the mark that some editors put before its text; see `read_file`.

    Raises:
        UserError: the file cannot be read, or is not UTF-8 text.
    """
    try:
        return read_file(path, what, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: not {what}: it is not text in UTF-8; save it as UTF-8, or name another file"
        ) from None


def check_archive(content: bytes, max_bytes: int) -> None:
    """Checks that a ZIP file, as NumPy and torch write them, does not unpack to more than `max_bytes`.

    Raises:
        ValueError: it does.
        BadZipFile: it is not a ZIP file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > max_bytes:
        raise ValueError(f"it unpacks to {num_bytes:,} bytes, more than {max_bytes:,}")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that it exists completely or not at all, even after a power cut.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    # The rename is durable only once the folder is synced.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would otherwise block until somebody writes into it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
