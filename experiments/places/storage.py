"""Where trials keep their files: a folder that every node shares, or an object store.

Below its root a storage has `cells/NAME/` with the checkpoints and artifacts of each cell and the traceback
of a failed one. In a folder, trials work directly, and share warm-ups in `warmups/`. With an object store,
they work in a local folder and upload new files after every epoch. The name of a checkpoint contains the
checksum of its content, so an incomplete upload is never used.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout
from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import redact

_CHECKPOINTS, _ARTIFACTS, _TRACEBACK = "checkpoints", "artifacts", "traceback.txt"

_PATIENCE_S = 60.0
"""How long a trial waits for one of an earlier launch, which Ray ends within seconds."""


@dataclass(frozen=True)
class Storage:
    """A folder or an object store.

    Attributes:
        uri: absolute path, or a URL that pyarrow supports, for instance `s3://BUCKET/PREFIX`.
    """

    uri: str

    @classmethod
    def parse(cls, text: str) -> "Storage":
        """Parses what a person wrote; paths are relative to the current folder.

        Raises:
            UserError: pyarrow does not support the URL, or it contains a secret.
        """
        if "://" not in text:
            return cls(str(Path(os.path.expanduser(text)).resolve()))
        if redact(text) != text:
            raise UserError(
                f"--storage: {text}: contains a secret or a user, which would be stored; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
            )
        storage = cls(text)
        storage._open()
        return storage

    @property
    def folder(self) -> Path | None:
        """The folder; None for an object store."""
        filesystem, root = self._open()
        return Path(root) if isinstance(filesystem, LocalFileSystem) else None

    @property
    def warmups_dir(self) -> Path | None:
        """Folder in which cells share warm-ups; None in an object store, which has no locks."""
        return self.folder / "warmups" if self.folder else None

    def check_writable(self) -> None:
        """Writes a file and removes it.

        Raises:
            UserError: one of the two failed.
        """
        filesystem, root = self._open()
        path = f"{root}/.tfnas-{secrets.token_hex(8)}"
        try:
            filesystem.create_dir(root)
            with filesystem.open_output_stream(path) as stream:
                stream.write(b"tfnas")
            filesystem.delete_file(path)
        except OSError as error:
            raise UserError(
                f"--storage: {self.uri}: cannot write there ({first_line(error)}); "
                "check the address, the bucket and the credentials of this node"
            ) from None

    def cell(self, name: str) -> "CellStorage":
        """The part that belongs to one cell."""
        filesystem, root = self._open()
        return CellStorage(filesystem, f"{root}/cells/{name}")

    def _open(self) -> tuple[FileSystem, str]:
        try:
            filesystem, root = FileSystem.from_uri(self.uri)
        except (ArrowException, ValueError, OSError) as error:
            raise UserError(
                f"--storage: {self.uri}: {first_line(error)}; give a path, or a URL like s3://BUCKET/PREFIX"
            ) from None
        return filesystem, root.rstrip("/")


class CellStorage:
    """The files that the trials of one cell leave behind.

    Args:
        path: within the file system.
    """

    def __init__(self, filesystem: FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._is_folder = isinstance(filesystem, LocalFileSystem)

    def make(self) -> None:
        """Creates the folders; a node that sees the first one shares the storage of the launch.

        Raises:
            OSError: the store is unreachable.
        """
        self._filesystem.create_dir(self._path)
        if not self._is_folder:
            for name in (_CHECKPOINTS, _ARTIFACTS):
                self._filesystem.create_dir(f"{self._path}/{name}")

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder to work in, with the existing checkpoints; what is new is saved by `save_...`.

        Raises:
            UserError: this node does not see the folder, or another process works in it.
            OSError: the store is unreachable.
        """
        if self._is_folder:
            if not Path(self._path).is_dir():
                raise UserError(
                    f"--storage: {self._path}: this node does not have the folder; give a folder that all "
                    "nodes share, or a URL like s3://BUCKET/PREFIX"
                )
            with _alone_in(Path(self._path)):
                yield Path(self._path)
            return
        with TemporaryDirectory(prefix="tfnas-") as folder:
            self._fetch(_CHECKPOINTS, Path(folder))
            yield Path(folder)

    def fetch_results(self, folder: Path) -> None:
        """Copies artifacts, or the traceback, into a folder.

        Raises:
            OSError: the store is unreachable.
        """
        self._fetch(_ARTIFACTS, folder)
        self._fetch(_TRACEBACK, folder)

    def save_checkpoints(self, folder: Path) -> None:
        """Makes the stored checkpoints those of a workplace; there are never fewer intact ones in between.

        Raises:
            OSError: the store is unreachable.
        """
        if self._is_folder:
            return
        here = {path.name for path in (folder / _CHECKPOINTS).glob("*.pt")}
        there = {Path(file.path).name for file in self._files(_CHECKPOINTS)}
        for name in sorted(here - there):
            self._put(folder, f"{_CHECKPOINTS}/{name}")
        for name in sorted(there - here):
            self._filesystem.delete_file(f"{self._path}/{_CHECKPOINTS}/{name}")

    def save_results(self, folder: Path) -> None:
        """Stores artifacts, or the traceback, of a workplace.

        Raises:
            OSError: the store is unreachable.
        """
        if not self._is_folder:
            for path in [*(folder / _ARTIFACTS).glob("*"), *folder.glob(_TRACEBACK)]:
                self._put(folder, path.relative_to(folder).as_posix())

    def _put(self, folder: Path, name: str) -> None:
        _copy(LocalFileSystem(), str(folder / name), self._filesystem, f"{self._path}/{name}")

    def _fetch(self, name: str, folder: Path) -> None:
        for file in self._files(name):
            path = folder / Path(file.path).relative_to(self._path)
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._filesystem, file.path, LocalFileSystem(), str(path))

    def _files(self, name: str) -> list[FileInfo]:
        """The file with that name, or the files in that folder."""
        path = f"{self._path}/{name}"
        info = self._filesystem.get_file_info(path)
        if info.type == FileType.File:
            return [info]
        files = self._filesystem.get_file_info(FileSelector(path, allow_not_found=True))
        return [file for file in files if file.type == FileType.File]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits for a trial that has yet to notice that its launch was killed; the lock ends with it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise UserError(
            f"{folder}: a process of an earlier launch still works there; end it, then retry"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _copy(from_system: FileSystem, path: str, to_system: FileSystem, to_path: str) -> None:
    copy_files(path, to_path, from_system, to_system)  # type: ignore[no-untyped-call]
