"""The lock of an output folder: one user at a time; it ends with the process that holds it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.foundation.errors import UserError


def is_launch_running(out: Path) -> bool:
    """Whether a launch into an output folder is running."""
    try:
        with _lock_path(out).open("rb") as file:
            # Shared, so that several can ask at once; closing the file releases it.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock_path(out: Path) -> Path:
    return out / ".lock"


@contextmanager
def only_user_of(out: Path, running: str = "another launch") -> Iterator[None]:
    """Holds the lock of a folder, which is created if it is missing.

    Args:
        running: what else may hold the lock, for the error.

    Raises:
        UserError: another process holds it, or the folder is not writable.
    """
    lock = FileLock(_lock_path(out))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"--out: {out}: {running} is running there; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"--out: {out}: cannot write there ({error.strerror}); choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
