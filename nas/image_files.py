"""Datasets of one file an image: folders of classes, and lists of paths with labels.

Shapes: B batch, N images, H W space, C channels.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nas.augment import JITTER, JITTER_HUE, augment, child_generator
from nas.config import Augmentation, DataConfig
from nas.errors import UserError
from nas.image_sets import Part

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
EVAL_MARGIN = 256 / 224
"""The centre crop is taken from an image whose shorter side is so many times longer."""

MISSING = -1


@dataclass(frozen=True)
class FileList:
    """Image files under a root, in a fixed order, and their labels.

    Attributes:
        root: folder that the paths start from.
        paths: relative, with forward slashes.
        labels: one a path, counted from 0.
        sizes_bytes: one a path; `MISSING` for a file that is not there.
        origins: what to name in an error, one a path: the path, or the line of a list.
        num_classes: highest label plus one.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    sizes_bytes: tuple[int, ...]
    origins: tuple[str, ...]
    num_classes: int

    def take(self, indices: Iterable[int]) -> "FileList":
        """The files of these indices, in their order."""
        kept = list(indices)
        return FileList(
            self.root,
            tuple(self.paths[i] for i in kept),
            tuple(self.labels[i] for i in kept),
            tuple(self.sizes_bytes[i] for i in kept),
            tuple(self.origins[i] for i in kept),
            self.num_classes,
        )


def list_image_files(config: DataConfig, part: Part) -> FileList:
    """Lists the training or the test images of an image dataset; opens no image.

    Raises:
        UserError: a folder or list is missing, malformed or without images, or, unless broken
            images are skipped, an image is missing or empty.
    """
    assert config.data_dir is not None
    if not config.data_dir.is_dir():
        raise UserError(f"data_dir: {config.data_dir}: no such folder; name the folder of the images")
    if config.dataset == "image_folder":
        files = _list_folder(config.data_dir, part)
    else:
        files = _read_list(config, part)
    if not config.skip_broken_images:
        for origin, size_bytes in zip(files.origins, files.sizes_bytes, strict=True):
            if size_bytes <= 0:
                raise _broken(origin, "no such file" if size_bytes == MISSING else "the file is empty")
    return files


def read_image(path: Path) -> Image.Image:
    """Decodes an image file completely, upright and as RGB, whatever its own colours are.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    try:
        with warnings.catch_warnings():
            # Odd metadata is the file's affair; a palette with transparency loses it.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):
                    upright = upright.point(lambda value: value / 256, "L")
                return upright.convert("RGB")
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not an image, or damaged"
        raise _broken(str(path), reason) from None


def eval_view(resolution: int) -> v2.Transform:
    """How an image is seen in evaluation: shorter side 256/224 of the resolution, centre crop."""
    return v2.Compose([v2.Resize(round(resolution * EVAL_MARGIN)), v2.CenterCrop(resolution)])


def _paper_view(resolution: int) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomResizedCrop(resolution),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(JITTER, JITTER, JITTER, JITTER_HUE),
        ]
    )


class FileImages:
    """Image files as batches of a resolution, decoded in `num_workers` processes."""

    def __init__(self, files: FileList, resolution: int, num_workers: int) -> None:
        self.files = files
        self.resolution = resolution
        self.num_workers = num_workers
        self.labels_N = torch.tensor(files.labels, dtype=torch.int64)

    def batches(
        self, batch_indices: Iterator[Tensor], augmentation: Augmentation, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields uint8 images_BHWC and their labels for each tensor of indices.

        Each sample has a seed of its own, drawn here, so that the number of processes does not
        matter.

        Raises:
            UserError: a file cannot be decoded.
        """
        view = _paper_view if augmentation == "paper" else eval_view
        # The loader reads ahead, so what it draws must not mix with what is drawn here.
        keys = _with_seeds(batch_indices, child_generator(generator))
        for decoded in self._load(view(self.resolution), keys):
            if isinstance(decoded, str):
                raise UserError(decoded)
            images_BHWC, indices_B = decoded
            if augmentation == "crop_flip":
                images_BHWC = augment(images_BHWC, augmentation, generator)
            yield images_BHWC, self.labels_N[indices_B]

    def _load(self, view: v2.Transform, keys: Iterable[list["Key"]]) -> Iterator["Decoded"]:
        loader: Iterable[Decoded] = DataLoader(
            _Decoder(self.files, view),
            batch_sampler=keys,
            num_workers=self.num_workers,
            collate_fn=_collate,
            # Without its own, the loader would draw from the global generator.
            generator=Generator(),
        )
        return iter(loader)


Key = tuple[int, int]
Decoded = tuple[Tensor, Tensor] | str


class _Decoder(Dataset[tuple[Tensor, int] | str]):
    """Maps (index, seed) to an image, or to a line that says what is wrong with its file."""

    def __init__(self, files: FileList, view: v2.Transform) -> None:
        self.files = files
        self.view = view

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | str:
        index, seed = key
        try:
            image = read_image(self.files.root / self.files.paths[index])
        except UserError as error:
            return str(error)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.from_numpy(np.array(self.view(image))), index


class _Checker(Dataset[bool]):
    """Maps an index to whether its file can be decoded."""

    def __init__(self, files: FileList) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int) -> bool:
        try:
            read_image(self.files.root / self.files.paths[index])
        except UserError:
            return False
        return True


def find_sound_files(files: FileList, num_workers: int) -> list[int]:
    """Indices of the files that can be decoded; decodes every one."""
    loader = DataLoader(
        _Checker(files), batch_size=64, num_workers=num_workers, collate_fn=list, generator=torch.Generator()
    )
    is_sound = [sound for batch in loader for sound in batch]
    return [index for index, sound in enumerate(is_sound) if sound]


def _with_seeds(batch_indices: Iterator[Tensor], generator: Generator) -> Iterator[list[Key]]:
    for indices_B in batch_indices:
        seeds_B = torch.randint(2**62, (len(indices_B),), generator=generator)
        yield list(zip(indices_B.tolist(), seeds_B.tolist(), strict=True))


def _collate(samples: list[tuple[Tensor, int] | str]) -> Decoded:
    images, indices = [], []
    for sample in samples:
        if isinstance(sample, str):
            return sample
        images.append(sample[0])
        indices.append(sample[1])
    return torch.stack(images), torch.tensor(indices)


def _list_folder(data_dir: Path, part: Part) -> FileList:
    has_parts = (data_dir / "train").is_dir()
    if part == "test" and not (has_parts and (data_dir / "test").is_dir()):
        raise UserError(
            f"data_dir: {data_dir}: has no test images; arrange it as train/CLASS/* and test/CLASS/*"
        )
    root = data_dir / part if has_parts else data_dir
    classes = _class_names(root)
    if part == "test":
        _check_same_classes(classes, _class_names(data_dir / "train"), root)
    paths, labels = [], []
    for label, name in enumerate(classes):
        in_class = sorted(
            path.relative_to(root).as_posix()
            for path in (root / name).rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if not in_class:
            raise UserError(f"data_dir: {root / name}: holds no images; fill the class or remove its folder")
        paths += in_class
        labels += [label] * len(in_class)
    return _file_list(root, paths, labels, [str(root / path) for path in paths], len(classes))


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"data_dir: {root}: holds {len(names)} class folders; at least 2 are needed")
    return names


def _check_same_classes(classes: list[str], train_classes: list[str], root: Path) -> None:
    if odd := sorted(set(classes) ^ set(train_classes)):
        raise UserError(f"data_dir: {root}: class '{odd[0]}' is not in both train and test; make them equal")


def _read_list(config: DataConfig, part: Part) -> FileList:
    list_path = config.train_list if part == "train" else config.test_list
    if list_path is None:
        raise UserError(f"{part}_list: missing; name the text file of the {part} images")
    assert config.data_dir is not None
    paths, labels, origins = [], [], []
    for number, line in enumerate(_list_lines(list_path), start=1):
        if not line.strip():
            continue
        path, label = _parse_line(line, f"{list_path}:{number}")
        paths.append(path)
        labels.append(label)
        origins.append(f"{list_path}:{number}: {config.data_dir / path}")
    if not paths:
        raise UserError(f"{list_path}: holds no images; write one `path label` a line")
    num_classes = max(labels) + 1
    if part == "train":
        _check_every_label(labels, list_path)
    elif num_classes > (num_train := _num_train_classes(config)):
        where = origins[labels.index(num_classes - 1)].split(": ")[0]
        raise UserError(f"{where}: label {num_classes - 1}; the training images have 0 to {num_train - 1}")
    return _file_list(config.data_dir, paths, labels, origins, num_classes)


def _list_lines(list_path: Path) -> list[str]:
    try:
        return list_path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{list_path}: cannot read the list of images: {error.strerror}; check the path"
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"{list_path}: not a list of images: not UTF-8 text; write `path label` lines"
        ) from None


def _parse_line(line: str, where: str) -> tuple[str, int]:
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or not parts[1].isdecimal() or len(parts[1]) > 9:
        raise UserError(f"{where}: '{line.strip()[:60]}'; must be a path and a label, an integer from 0")
    path = PurePosixPath(parts[0].strip())
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: '{path}' leaves data_dir; paths are relative to it and go down only")
    return path.as_posix(), int(parts[1])


def _check_every_label(labels: list[int], list_path: Path) -> None:
    present = set(labels)
    if len(present) <= max(present):
        absent = next(label for label in range(max(present)) if label not in present)
        raise UserError(
            f"{list_path}: no image of class {absent}, but one of class {max(present)}; number classes from 0"
        )
    if len(present) < 2:
        raise UserError(f"{list_path}: holds images of one class only; at least 2 are needed")


def _num_train_classes(config: DataConfig) -> int:
    return _read_list(config, "train").num_classes


def _file_list(
    root: Path, paths: list[str], labels: list[int], origins: list[str], num_classes: int
) -> FileList:
    sizes_bytes = tuple(_size_bytes(root / path) for path in paths)
    return FileList(root, tuple(paths), tuple(labels), sizes_bytes, tuple(origins), num_classes)


def _size_bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return MISSING


def _broken(origin: str, reason: str) -> UserError:
    return UserError(f"{origin}: {reason}; replace it, or set skip_broken_images: true to leave it out")
