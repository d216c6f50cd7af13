"""The image files of a data set: class folders, and lists of paths with labels."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from nas.data.memory_images import Part
from nas.foundation.errors import UserError
from nas.foundation.files import read_text

if TYPE_CHECKING:
    from nas.config import DataConfig

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
MISSING = -1

TEST_SHARE = 0.2
"""Share of each class that becomes test images where class folders are not divided into train and test."""

_MIN_TO_DIVIDE = 3
"""Images of a class for one test image, and one for each of the two parts of a search or a training."""

_PART_NAME = re.compile(
    r"(train|training|trn|val|valid|validation|dev|test|testing|tst|eval|evaluation|holdout)"
    r"([ _-]?(set|split|data|images|\d+))*",
    re.IGNORECASE,
)
"""What people call a part of a data set."""


class ImageFile(NamedTuple):
    """One image file, while it is listed.

    Attributes:
        path: relative to the list's root, with forward slashes.
        label: the class, counted from 0.
        size_bytes: `MISSING` if the file does not exist, or is a folder or a pipe.
        line: `list.txt:7` if a text file names the image file, otherwise empty.
        is_arch: whether the image is for architecture steps.
    """

    path: str
    label: int
    size_bytes: int
    line: str = ""
    is_arch: bool = False


@dataclass(frozen=True, eq=False)
class FileList:
    """N image files under a root, in the order of their paths: the order of a list has no effect.

    Columns, not a record per file: trials receive the list, and data sets have more than a million files.

    Attributes:
        paths: relative to the root, with forward slashes.
        labels_N: int64, counted from 0.
        sizes_bytes_N: int64; see `ImageFile`.
        class_names: one per label; for a list of files, the label itself.
        is_arch_N: which images are for architecture steps; None if a search is to split them.
        is_divided: whether test images were set apart from classes here, see `TEST_SHARE`.
    """

    root: Path
    paths: tuple[str, ...]
    labels_N: Tensor
    sizes_bytes_N: Tensor
    class_names: tuple[str, ...]
    is_arch_N: Tensor | None = None
    is_divided: bool = False

    @classmethod
    def of(
        cls,
        root: Path,
        files: Iterable[ImageFile],
        class_names: tuple[str, ...],
        *,
        is_split: bool = False,
        is_divided: bool = False,
    ) -> "FileList":
        """Puts files in order.

        Args:
            is_split: whether `is_arch` of the files holds.
        """
        ordered = sorted(files, key=lambda file: (file.path, file.label))
        return cls(
            root,
            tuple(file.path for file in ordered),
            torch.tensor([file.label for file in ordered], dtype=torch.int64),
            torch.tensor([file.size_bytes for file in ordered], dtype=torch.int64),
            class_names,
            torch.tensor([file.is_arch for file in ordered]) if is_split else None,
            is_divided,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Path of a file."""
        return f"{self.root}/{self.paths[index]}"

    def take(self, indices_K: Tensor) -> "FileList":
        """The files with these indices, in this order."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in indices_K.tolist()),
            labels_N=self.labels_N[indices_K],
            sizes_bytes_N=self.sizes_bytes_N[indices_K],
            is_arch_N=None if self.is_arch_N is None else self.is_arch_N[indices_K],
        )


Listing = Mapping[Part, FileList]
"""The image files of a data set, by part; empty for images in memory."""


def list_folder(config: "DataConfig", parts: Sequence[Part]) -> Listing:
    """Lists the images of class folders; opens none.

    Subfolders of a class belong to it, also if they are links. Hidden files and folders are left out. If the
    classes lie in `data_dir` itself, the test images are `TEST_SHARE` of each class, chosen by a hash of
    their paths: neither a seed nor the place of the folder decides, so that searches never see them.

    Raises:
        UserError: a folder is missing, unreadable, without images, there twice by way of links, or looks like
            a part of a data set rather than a class. Also if an image is empty, unless broken images are
            skipped.
    """
    root = _image_root(config)
    return {part: _list_part(root, part, config) for part in parts}


def read_lists(config: "DataConfig", parts: Sequence[Part]) -> Listing:
    """Lists the images that text files name; opens none.

    Raises:
        UserError: a list is missing or malformed, or an image is in two of them. Also if an image is missing
            or empty, unless broken images are skipped.
    """
    root = _image_root(config)
    train_files = _read_train_lists(config)
    class_names = _count_classes(train_files, config)
    listing = {}
    for part in parts:
        files = train_files if part == "train" else _read_test_list(config, len(class_names), train_files)
        measured = [file._replace(size_bytes=_size_bytes(f"{root}/{file.path}")) for file in files]
        _check_presence(root, measured, config)
        is_split = part == "train" and config.arch_list is not None
        listing[part] = FileList.of(root, measured, class_names, is_split=is_split)
    return listing


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
    return _count_classes(_read_train_lists(config), config)


def refuse_file(complaint: str) -> UserError:
    """The error for an image file that cannot be used."""
    return UserError(f"{complaint}; replace it, or set skip_broken_images: true to leave it out")


def _image_root(config: "DataConfig") -> Path:
    assert config.data_dir is not None
    if not os.path.isdir(config.data_dir):
        raise UserError(f"data_dir: {config.data_dir}: no such folder; name the folder of the images")
    return config.data_dir


def _check_presence(root: Path, files: Iterable[ImageFile], config: "DataConfig") -> None:
    if config.skip_broken_images:
        return
    for file in files:
        if file.size_bytes <= 0:
            place = f"{file.line}: {root}/{file.path}" if file.line else f"{root}/{file.path}"
            reason = "no such file" if file.size_bytes == MISSING else "the file is empty"
            raise refuse_file(f"{place}: {reason}")


# Class folders


def _list_part(data_dir: Path, part: Part, config: "DataConfig") -> FileList:
    has_parts = (data_dir / "train").is_dir()
    if part == "test" and has_parts and not (data_dir / "test").is_dir():
        raise UserError(
            f"data_dir: {data_dir}: has train, but no test images; add them as test/CLASS/*, or move the "
            f"class folders up into data_dir, where {TEST_SHARE:.0%} of each become test images"
        )
    root = data_dir / part if has_parts else data_dir
    classes = _class_folders(root)
    if part == "test" and has_parts:
        _check_same_classes(classes, _class_folders(data_dir / "train"), root)
    seen: dict[tuple[int, int], str] = {}
    of_class: list[list[ImageFile]] = []
    for label, name in enumerate(classes):
        found = [ImageFile(path, label, size_bytes) for path, size_bytes in _walk(root, name, seen)]
        if not found:
            raise UserError(f"data_dir: {root / name}: holds no images; fill the class or remove its folder")
        of_class.append(sorted(found))
    if not has_parts:
        _check_are_classes(root, classes, seen.values())
        of_class = [_divide(found, part, root / name) for name, found in zip(classes, of_class, strict=True)]
    files = [file for found in of_class for file in found]
    _check_presence(root, files, config)
    return FileList.of(root, files, tuple(classes), is_divided=not has_parts)


def _divide(files: list[ImageFile], part: Part, folder: Path) -> list[ImageFile]:
    """The training or the test images of a class of which no folder says which are which."""
    if len(files) < _MIN_TO_DIVIDE:
        raise UserError(
            f"data_dir: {folder}: holds {len(files)} images; at least {_MIN_TO_DIVIDE} are needed, since "
            "some become test images; add images, or arrange data_dir as train/CLASS/* and test/CLASS/*"
        )
    num_test = max(round(TEST_SHARE * len(files)), 1)
    # A name that is added or removed moves hardly any other from one part to the other.
    by_hash = sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file.path)).digest())
    return by_hash[:num_test] if part == "test" else by_hash[num_test:]


def _check_are_classes(root: Path, classes: Sequence[str], folders: Iterable[str]) -> None:
    """Checks that the folders of a root without `train` are classes, and not parts of a data set.

    Args:
        folders: all folders below the root.
    """
    below = [folder.split("/") for folder in folders]
    with_subfolders = {names[0] for names in below if len(names) > 1}
    named = [name for name in classes if _PART_NAME.fullmatch(name)]
    # A class may have such a name: the vehicle "train". But then it holds images, and is not the only one.
    parts = named if len(named) == len(classes) else [name for name in named if name in with_subfolders]
    parts += ["/".join(names) for names in below if len(names) == 2 and _PART_NAME.fullmatch(names[1])]
    if parts:
        raise UserError(
            f"data_dir: {root}: {', '.join(sorted(parts)[:4])}: parts of a data set by their names, not "
            "classes; arrange it as train/CLASS/* and test/CLASS/* (a class of such a name: move all classes "
            "into train)"
        )


def _walk(root: Path, name: str, seen: dict[tuple[int, int], str]) -> Iterator[tuple[str, int]]:
    """Relative path and size in bytes of each image of a folder and its subfolders.

    Args:
        seen: the folders walked before, by what identifies them whatever links lead there; extended.
    """
    folders = [name]
    while folders:
        folder = folders.pop()
        try:
            _check_unseen(root, folder, seen)
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append(f"{folder}/{entry.name}")
                    elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                        yield f"{folder}/{entry.name}", _entry_size_bytes(entry)
        except OSError as error:
            raise _refuse_folder(f"{root}/{folder}", error) from None


def _check_unseen(root: Path, folder: str, seen: dict[tuple[int, int], str]) -> None:
    status = os.stat(f"{root}/{folder}")
    other = seen.setdefault((status.st_dev, status.st_ino), folder)
    if other != folder:
        raise UserError(
            f"data_dir: {root}/{folder}: the same folder as {other}, so its images would count twice; remove "
            "the link"
        )


def _entry_size_bytes(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size if entry.is_file() else MISSING
    except OSError:
        return MISSING


def _refuse_folder(folder: str, error: OSError) -> UserError:
    return UserError(f"data_dir: {folder}: cannot list it ({error.strerror}); make it readable")


def _class_folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise _refuse_folder(str(root), error) from None
    if len(names) < 2:
        raise UserError(f"data_dir: {root}: holds {len(names)} class folders; at least 2 are needed")
    return names


def _check_same_classes(classes: list[str], train_classes: list[str], root: Path) -> None:
    if odd := sorted(set(classes) ^ set(train_classes)):
        raise UserError(f"data_dir: {root}: class '{odd[0]}' is not in both train and test; make them equal")


# Lists


def _read_train_lists(config: "DataConfig") -> list[ImageFile]:
    assert config.train_list is not None
    files = _parse_list(config.train_list)
    if config.arch_list is None:
        return files
    arch_files = [file._replace(is_arch=True) for file in _parse_list(config.arch_list)]
    _check_apart(files, arch_files, "arch_list", "either for weight or for architecture steps")
    if missing := {file.label for file in arch_files} - {file.label for file in files}:
        raise UserError(
            f"train_list: {config.train_list}: no image of class {min(missing)}, but arch_list has some; add "
            "images of it, or weight steps would never see the class"
        )
    return files + arch_files


def _check_apart(files: list[ImageFile], others: list[ImageFile], field: str, rule: str) -> None:
    """Checks that two lists have no image in common.

    Args:
        others: of the list that `field` names.
        rule: why, after "an image is".
    """
    line_of = {file.path: file.line for file in files}
    for file in others:
        if file.path in line_of:
            raise UserError(
                f"{field}: {file.line}: '{file.path}' is also in {line_of[file.path]}, but an image is "
                f"{rule}; remove one of the two lines"
            )


def _read_test_list(config: "DataConfig", num_classes: int, train_files: list[ImageFile]) -> list[ImageFile]:
    if config.test_list is None:
        raise UserError("test_list: missing; name the text file of the test images")
    files = _parse_list(config.test_list)
    _check_apart(train_files, files, "test_list", "either for training or for testing")
    for file in files:
        if file.label >= num_classes:
            raise UserError(
                f"{file.line}: label {file.label}; the training images have 0 to {num_classes - 1}"
            )
    return files


def _parse_list(list_path: Path) -> list[ImageFile]:
    lines = io.StringIO(read_text(list_path, "a list of images"), newline=None)
    files = [
        _parse_line(line, f"{list_path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not files:
        raise UserError(f"{list_path}: holds no images; write one `path label` per line")
    line_of: dict[str, str] = {}
    for file in files:
        if (first := line_of.setdefault(file.path, file.line)) != file.line:
            raise UserError(f"{file.line}: '{file.path}' is also in {first}; remove one of the two lines")
    return files


def _parse_line(line: str, where: str) -> ImageFile:
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or not parts[1].isdecimal() or len(parts[1]) > 9:
        raise UserError(
            f"{where}: '{line.strip()[:60]}'; must be a path and a label, from 0, with a space between"
        )
    path = parts[0].strip()
    names = path.split("/")
    if not names[0] or ".." in names:
        raise UserError(f"{where}: '{path}' leaves data_dir; paths are relative to it and go down only")
    # As in a folder's listing, so that one file has one path.
    path = "/".join(name for name in names if name not in ("", ".")) or "."
    return ImageFile(path, int(parts[1]), MISSING, where)


def _count_classes(files: list[ImageFile], config: "DataConfig") -> tuple[str, ...]:
    """The labels of the training images, as text."""
    present = {file.label for file in files}
    highest = max(present)
    if len(present) <= highest:
        absent = next(label for label in range(highest) if label not in present)
        raise UserError(
            f"{config.train_list}: no image of class {absent}, but one of class {highest}; "
            "number classes from 0"
        )
    if len(present) < 2:
        raise UserError(f"{config.train_list}: holds images of one class only; at least 2 are needed")
    return tuple(map(str, range(highest + 1)))


def _size_bytes(path: str) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return status.st_size if stat.S_ISREG(status.st_mode) else MISSING
