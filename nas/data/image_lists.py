"""The image files of a data set: class folders, and lists of paths with labels."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nas.data.memory_images import Part
from nas.foundation.errors import UserError
from nas.foundation.files import read_text

if TYPE_CHECKING:
    from nas.config import DataConfig

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
MISSING = -1


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file of a list.

    Attributes:
        path: relative to the list's root, with forward slashes.
        label: the class, counted from 0.
        size_bytes: `MISSING` if the file does not exist, or is a folder or a pipe.
        line: `list.txt:7` if a text file names the image file, otherwise empty.
    """

    path: str
    label: int
    size_bytes: int
    line: str = ""


@dataclass(frozen=True)
class FileList:
    """Image files under a root, in the order of their paths, so that a list's own order has no effect.

    Attributes:
        class_names: one per label; for a list of files, the label itself.
    """

    root: Path
    files: tuple[ImageFile, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """The labels, one per file."""
        return [file.label for file in self.files]

    def path(self, index: int) -> Path:
        """Path of a file."""
        return self.root / self.files[index].path

    def take(self, indices: Iterable[int]) -> "FileList":
        """The files with these indices, in this order."""
        return replace(self, files=tuple(self.files[index] for index in indices))


def list_folder(config: "DataConfig", part: Part) -> FileList:
    """Lists the training or test images of class folders; opens no image.

    Raises:
        UserError: a folder is missing or has no images. Also if an image is empty, unless broken images
            are skipped.
    """
    return _without_missing(_list_folder(_image_root(config), part), config)


def read_list(config: "DataConfig", part: Part) -> FileList:
    """Lists the training or test images that a text file names; opens no image.

    Raises:
        UserError: the list is missing or malformed. Also if an image is missing or empty, unless broken
            images are skipped.
    """
    _image_root(config)
    return _without_missing(_read_list(config, part), config)


def folder_classes(config: "DataConfig") -> tuple[str, ...]:
    """Names of the class folders, in the order of the labels.

    Raises:
        UserError: the folder is missing, or has fewer than two classes.
    """
    root = _image_root(config)
    train = root / "train"
    return tuple(_class_folders(train if train.is_dir() else root))


def list_classes(config: "DataConfig") -> tuple[str, ...]:
    """The labels of an image list, as text.

    Raises:
        UserError: the list is missing or malformed.
    """
    return tuple(map(str, range(_count_list_classes(config))))


def refuse_file(complaint: str) -> UserError:
    """The error for an image file that cannot be used."""
    return UserError(f"{complaint}; replace it, or set skip_broken_images: true to leave it out")


def _image_root(config: "DataConfig") -> Path:
    assert config.data_dir is not None
    if not os.path.isdir(config.data_dir):
        raise UserError(f"data_dir: {config.data_dir}: no such folder; name the folder of the images")
    return config.data_dir


def _without_missing(files: FileList, config: "DataConfig") -> FileList:
    if not config.skip_broken_images:
        _check_presence(files)
    return replace(files, files=tuple(sorted(files.files, key=lambda file: (file.path, file.label))))


def _check_presence(files: FileList) -> None:
    for index, file in enumerate(files.files):
        if file.size_bytes <= 0:
            place = f"{file.line}: {files.path(index)}" if file.line else str(files.path(index))
            reason = "no such file" if file.size_bytes == MISSING else "the file is empty"
            raise refuse_file(f"{place}: {reason}")


def _list_folder(data_dir: Path, part: Part) -> FileList:
    has_parts = (data_dir / "train").is_dir()
    if part == "test" and not (has_parts and (data_dir / "test").is_dir()):
        raise UserError(
            f"data_dir: {data_dir}: has no test images; arrange it as train/CLASS/* and test/CLASS/*"
        )
    root = data_dir / part if has_parts else data_dir
    classes = _class_folders(root)
    if part == "test":
        _check_same_classes(classes, _class_folders(data_dir / "train"), root)
    files: list[ImageFile] = []
    for label, name in enumerate(classes):
        paths = sorted(path for path in (root / name).rglob("*") if _is_image_name(path.name))
        if not paths:
            raise UserError(f"data_dir: {root / name}: holds no images; fill the class or remove its folder")
        files += [ImageFile(path.relative_to(root).as_posix(), label, _size_bytes(path)) for path in paths]
    return FileList(root, tuple(files), tuple(classes))


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _class_folders(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"data_dir: {root}: holds {len(names)} class folders; at least 2 are needed")
    return names


def _check_same_classes(classes: list[str], train_classes: list[str], root: Path) -> None:
    if odd := sorted(set(classes) ^ set(train_classes)):
        raise UserError(f"data_dir: {root}: class '{odd[0]}' is not in both train and test; make them equal")


def _read_list(config: "DataConfig", part: Part) -> FileList:
    list_path = config.train_list if part == "train" else config.test_list
    if list_path is None:
        raise UserError(f"{part}_list: missing; name the text file of the {part} images")
    assert config.data_dir is not None
    rows = _parse_list(list_path)
    num_classes = _count_list_classes(config)
    for _, label, line in rows:
        if label >= num_classes:
            raise UserError(f"{line}: label {label}; the training images have 0 to {num_classes - 1}")
    root = config.data_dir
    files = (ImageFile(path, label, _size_bytes(root / path), line) for path, label, line in rows)
    return FileList(root, tuple(files), tuple(map(str, range(num_classes))))


def _parse_list(list_path: Path) -> list[tuple[str, int, str]]:
    rows = [
        _parse_line(line, f"{list_path}:{number}")
        for number, line in enumerate(_list_lines(list_path), start=1)
        if line.strip()
    ]
    if not rows:
        raise UserError(f"{list_path}: holds no images; write one `path label` per line")
    return rows


def _list_lines(list_path: Path) -> list[str]:
    return read_text(list_path, "a list of images").splitlines()


def _parse_line(line: str, where: str) -> tuple[str, int, str]:
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or not parts[1].isdecimal() or len(parts[1]) > 9:
        raise UserError(f"{where}: '{line.strip()[:60]}'; must be a path and a label, an integer from 0")
    path = PurePosixPath(parts[0].strip())
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: '{path}' leaves data_dir; paths are relative to it and go down only")
    return path.as_posix(), int(parts[1]), where


def _count_list_classes(config: "DataConfig") -> int:
    assert config.train_list is not None
    present = {label for _, label, _ in _parse_list(config.train_list)}
    highest = max(present)
    if len(present) <= highest:
        absent = next(label for label in range(highest) if label not in present)
        raise UserError(
            f"{config.train_list}: no image of class {absent}, but one of class {highest}; "
            "number classes from 0"
        )
    if len(present) < 2:
        raise UserError(f"{config.train_list}: holds images of one class only; at least 2 are needed")
    return highest + 1


def _size_bytes(path: Path) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return status.st_size if stat.S_ISREG(status.st_mode) else MISSING
