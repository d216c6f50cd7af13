"""Where trials put their files: a folder that every node sees, or an object store.

Below its root a storage has `cells/NAME/` with the checkpoints and artifacts of each cell and, should
its search fail, the traceback. Where it is a folder, trials work in it, and share warm-ups in `warmups/`.
Where it is an object store, they work in a folder of their node and bring what is new to the store after
every epoch: a checkpoint's name carries the checksum of its content, so that one cut off on the way is
never taken for whole.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from nas.foundation.errors import UserError

_CHECKPOINTS, _ARTIFACTS, _TRACEBACK = "checkpoints", "artifacts", "traceback.txt"

_PATIENCE_S = 60.0
"""How long a trial waits for one of an earlier launch to end: Ray ends those within seconds."""


@dataclass(frozen=True)
class Storage:
    """A folder or an object store.

    Attributes:
        uri: absolute path, or a URL that pyarrow knows, `s3://BUCKET/PREFIX` for instance.
    """

    uri: str

    @classmethod
    def parse(cls, text: str) -> "Storage":
        """What a person wrote; a relative path is one of this folder.

        Raises:
            UserError: it is no URL that pyarrow knows, or it holds a secret.
        """
        if "://" not in text:
            return cls(str(Path(text).resolve()))
        if urlsplit(text).password:
            raise UserError(
                "--storage: holds a secret, which would be written down; set AWS_SECRET_ACCESS_KEY"
            )
        storage = cls(text)
        storage._open()
        return storage

    @property
    def folder(self) -> Path | None:
        """The folder that it is, if it is one."""
        filesystem, root = self._open()
        return Path(root) if isinstance(filesystem, LocalFileSystem) else None

    @property
    def warmups_dir(self) -> Path | None:
        """Where cells share warm-ups; None in an object store, which has no locks."""
        return self.folder / "warmups" if self.folder else None

    def check_writable(self) -> None:
        """Writes a file and removes it.

        Raises:
            UserError: that failed.
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
                f"--storage: {self.uri}: cannot write there ({_first_line(error)}); "
                "check the address, that the bucket exists, and the credentials of this node"
            ) from None

    def cell(self, name: str) -> "CellStorage":
        """The part of one cell."""
        filesystem, root = self._open()
        return CellStorage(filesystem, f"{root}/cells/{name}")

    def _open(self) -> tuple[FileSystem, str]:
        try:
            filesystem, root = FileSystem.from_uri(self.uri)
        except (ArrowException, ValueError, OSError) as error:
            raise UserError(
                f"--storage: {self.uri}: {_first_line(error)}; give a path, or a URL like s3://BUCKET/PREFIX"
            ) from None
        return filesystem, root.rstrip("/")


class CellStorage:
    """What the trials of one cell leave behind.

    Args:
        path: within the file system.
    """

    def __init__(self, filesystem: FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._is_folder = isinstance(filesystem, LocalFileSystem)

    def make(self) -> None:
        """Makes the folders; by the first a node is known to see what the launch sees.

        Raises:
            OSError: the store cannot be reached.
        """
        self._filesystem.create_dir(self._path)
        if not self._is_folder:
            for name in (_CHECKPOINTS, _ARTIFACTS):
                self._filesystem.create_dir(f"{self._path}/{name}")

    @contextmanager
    def workplace(self) -> Iterator["Workplace"]:
        """A folder to work in, with the checkpoints that there are.

        Raises:
            UserError: this node does not see the folder, or another process works in it.
            OSError: the store cannot be reached.
        """
        if self._is_folder:
            if not Path(self._path).is_dir():
                raise UserError(
                    f"--storage: {self._path}: this node does not see the folder; give one that all nodes "
                    "share, or a URL like s3://BUCKET/PREFIX"
                )
            with _alone_in(Path(self._path)):
                yield Workplace(Path(self._path), None)
            return
        with TemporaryDirectory(prefix="tfnas-") as folder:
            self._fetch(_CHECKPOINTS, Path(folder))
            yield Workplace(Path(folder), self)

    def fetch_results(self, folder: Path) -> None:
        """Copies artifacts, or the traceback, into a folder.

        Raises:
            OSError: the store cannot be reached.
        """
        self._fetch(_ARTIFACTS, folder)
        self._fetch(_TRACEBACK, folder)

    def replace_checkpoints(self, folder: Path) -> None:
        """Makes the checkpoints those of a folder; at no time are there fewer intact ones."""
        here = {path.name for path in (folder / _CHECKPOINTS).glob("*.pt")}
        there = {Path(file.path).name for file in self._files(_CHECKPOINTS)}
        for name in sorted(here - there):
            self._put(folder, f"{_CHECKPOINTS}/{name}")
        for name in sorted(there - here):
            self._filesystem.delete_file(f"{self._path}/{_CHECKPOINTS}/{name}")

    def put_results(self, folder: Path) -> None:
        """Copies artifacts, or the traceback, from a folder."""
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
        """The file of that name, or the files of that folder."""
        path = f"{self._path}/{name}"
        info = self._filesystem.get_file_info(path)
        if info.type == FileType.File:
            return [info]
        files = self._filesystem.get_file_info(FileSelector(path, allow_not_found=True))
        return [file for file in files if file.type == FileType.File]


@dataclass(frozen=True)
class Workplace:
    """Where one trial works.

    Attributes:
        folder: on this node, or of all nodes.
        store: where its files are brought to; None where the folder is that place.
    """

    folder: Path
    store: CellStorage | None

    def save_checkpoints(self) -> None:
        """To be called after every epoch.

        Raises:
            OSError: the store cannot be reached.
        """
        if self.store:
            self.store.replace_checkpoints(self.folder)

    def save_results(self) -> None:
        """To be called once artifacts, or a traceback, are written.

        Raises:
            OSError: the store cannot be reached.
        """
        if self.store:
            self.store.put_results(self.folder)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits for a trial whose driver was killed, and which has yet to notice; the lock dies with it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise UserError(
            f"{folder}: a process of an earlier launch still works in it; end it, then retry"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _copy(from_system: FileSystem, path: str, to_system: FileSystem, to_path: str) -> None:
    copy_files(path, to_path, from_system, to_system)  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
