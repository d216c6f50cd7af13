"""Files: reading those that a user named (regular, of bounded size, nothing else), and writing atomically."""

import io
import os
import stat
import zipfile
from pathlib import Path

from nas.foundation.errors import UserError

MAX_BYTES = 1_000_000_000


def read_file(path: str | Path, what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Reads a whole file; never waits for a pipe, nor reads a device without end.

    Args:
        what: what it should hold, for the error: `an architecture` for instance.
        max_bytes: how large it may be.

    Raises:
        UserError: the file is missing, cannot be read, is no regular file, or is too large.
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
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror}; check the path") from None
    # A path that no file can have: with a NUL, or with half a surrogate pair.
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot read {what}: no file can have that name; check the path") from None


def read_text(path: str | Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """Reads a whole text file, see `read_file`.

    Raises:
        UserError: the file cannot be read, or is not text in UTF-8.
    """
    try:
        return read_file(path, what, max_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not {what}: it is not text in UTF-8; name another file") from None


def check_archive(content: bytes, max_bytes: int) -> None:
    """Checks that a ZIP file, as NumPy and torch write them, is not larger inside than it may be.

    Raises:
        ValueError: it is.
        BadZipFile: it is no ZIP file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > max_bytes:
        raise ValueError(f"it unpacks to {num_bytes:,} bytes, more than {max_bytes:,}")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that, even after a power cut, it is there as a whole or not at all.

    Raises:
        OSError: it cannot be written; then nothing is left behind.
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
    # The rename itself is durable only once the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe would be waited for until somebody writes into it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
