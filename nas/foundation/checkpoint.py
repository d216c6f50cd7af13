"""Checkpoints of a search or a training: written atomically, checksummed, the last two kept, never unpickled.

A checkpoint is the file `checkpoint-EPOCH-CHECKSUM.pt`, written by `torch.save` and readable by
`torch.load(path, weights_only=True)`. Its name contains the checksum of its content, so one rename
publishes both. It may hold tensors, numbers, strings and containers of them.
"""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from nas.foundation.errors import DamagedCheckpointWarning, UserError
from nas.foundation.files import check_archive, write_atomically

NUM_KEPT = 2
"""Number of checkpoints kept: the newest, and the one before in case the newest is damaged."""

_FORMAT = 1
_NAME = re.compile(r"checkpoint-(?P<epoch>\d{5,})-(?P<checksum>[0-9a-f]{16})\.pt")


def save_checkpoint(directory: Path, epoch: int, state: dict[str, Any], config_hash: str) -> Path:
    """Writes a checkpoint. Whatever happens meanwhile, the earlier ones stay readable.

    Args:
        directory: created if it is missing.
        epoch: number of completed epochs.
        state: tensors, numbers, strings and containers of them.
        config_hash: identifies the run; only a run with the same hash can load it.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "epoch": epoch, "config_hash": config_hash, "state": state}, buffer)
    path = directory / f"checkpoint-{epoch:05d}-{_checksum(buffer.getbuffer())}.pt"
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getbuffer())
    _remove_old(directory, newest=path)
    return path


def load_newest_checkpoint(directory: Path, config_hash: str) -> dict[str, Any] | None:
    """Returns the state of the newest intact checkpoint, or None if there is none.

    A damaged checkpoint is skipped with a warning.

    Args:
        config_hash: the hash of the run.

    Raises:
        UserError: the checkpoint belongs to another run.
    """
    for path in reversed(find_checkpoints(directory)):
        try:
            content = _read(path)
        except ValueError as error:
            warnings.warn(
                f"{path}: damaged; falling back to the checkpoint before ({error})",
                DamagedCheckpointWarning,
                stacklevel=2,
            )
            continue
        if content.get("config_hash") != config_hash or content.get("format") != _FORMAT:
            raise UserError(
                f"{path}: checkpoint of another run (config, lookup table, images or results version "
                "differ); give each run a folder of its own, or remove this one"
            )
        state: dict[str, Any] = content["state"]
        return state
    return None


def find_checkpoints(directory: Path) -> list[Path]:
    """Files of a folder with a checkpoint's name, oldest epoch first."""
    if not directory.is_dir():
        return []
    return sorted(
        (path for path in directory.iterdir() if _NAME.fullmatch(path.name)),
        key=lambda path: (_epoch_of(path), path.stat().st_mtime_ns),
    )


def newest_epoch(directory: Path) -> int:
    """Completed epochs of the newest file with a checkpoint's name; 0 if there is none."""
    return max(map(_epoch_of, find_checkpoints(directory)), default=0)


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        ValueError: it cannot be read; says why.
    """
    content = path.read_bytes()
    if not path.stem.endswith(_checksum(content)):
        raise ValueError("its checksum differs")
    try:
        checkpoint = load_torch(content)
    # A file that is not a checkpoint can raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{type(error).__name__}: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError("it holds no checkpoint")
    return checkpoint


def load_torch(content: bytes) -> Any:
    """Reads the output of `torch.save`. Runs no code, and needs no more memory than the size of the file.

    Raises:
        Exception: of nearly any kind, if the content is damaged.
    """
    # torch does not compress what it saves. A compressed file was made to unpack to something large.
    check_archive(content, max_bytes=len(content))
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _checksum(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _epoch_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def _remove_old(directory: Path, newest: Path) -> None:
    # A resumed run rewrites an epoch whose earlier file may be the damaged one.
    others = [path for path in find_checkpoints(directory) if _epoch_of(path) < _epoch_of(newest)]
    kept = {newest, *others[len(others) - (NUM_KEPT - 1) :]}
    stale = [path for path in find_checkpoints(directory) if path not in kept]
    for path in [*stale, *directory.glob("checkpoint-*.partial")]:
        path.unlink(missing_ok=True)
