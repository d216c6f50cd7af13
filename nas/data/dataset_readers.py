"""Readers of data sets that fit in memory, each as one array of training or test images.

Shapes: N images, H W space, C channels.
"""

import gzip
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.data.memory_images import Arrays, Part
from nas.foundation.errors import UserError, first_line
from nas.foundation.files import read_file
from nas.foundation.pickles import check_pickle

if TYPE_CHECKING:
    from nas.config import DataConfig

BUNDLED_FILE = Path(__file__).parent / "bundled" / "fashion_mnist_subset.npz"

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_MAX_IDX_BYTES = 200_000_000
_IDX_MAGIC = {1: 0x0801, 3: 0x0803}
_CIFAR_FILES = {
    "cifar10": {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
_CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_CIFAR_NAMES = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}
"""The file with the names of the classes, and the key of the names in that file."""

_CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}


def read_bundled(config: "DataConfig", part: Part) -> Arrays:
    """Reads the subset of Fashion-MNIST that comes with the package.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(BUNDLED_FILE, allow_pickle=False) as file:
            return file[f"{part}_images"][..., np.newaxis], file[f"{part}_labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{BUNDLED_FILE}: the bundled images are damaged ({error}); reinstall tfnas"
        ) from None


def read_fashion_mnist(config: "DataConfig", part: Part) -> Arrays:
    """Reads Fashion-MNIST from `data_dir`.

    Raises:
        UserError: a file is missing or damaged.
    """
    images_NHW, labels_N = read_idx_files(_folder(config), part)
    return images_NHW[..., np.newaxis], labels_N


def read_idx_files(folder: Path, part: Part) -> Arrays:
    """Reads images_NHW and labels_N from the files of Fashion-MNIST, compressed or not.

    Args:
        folder: holds the files themselves or, as torchvision lays them out, `FashionMNIST/raw`.

    Raises:
        UserError: a file is missing or damaged.
    """
    prefix = {"train": "train", "test": "t10k"}[part]
    images_NHW = _read_idx(_find_idx(folder, f"{prefix}-images-idx3-ubyte"), num_dimensions=3)
    labels_N = _read_idx(_find_idx(folder, f"{prefix}-labels-idx1-ubyte"), num_dimensions=1)
    return _checked(images_NHW, labels_N, len(FASHION_CLASSES), where=str(folder))


def read_cifar(config: "DataConfig", part: Part) -> Arrays:
    """Reads one part of CIFAR-10 or CIFAR-100 from `data_dir`, and no file of the other part.

    Raises:
        UserError: a file is missing or damaged.
    """
    dataset, folder = config.dataset, _folder(config)
    root = folder / _CIFAR_FOLDERS[dataset]
    batches = [_read_cifar_file(folder, root / name, dataset) for name in _CIFAR_FILES[dataset][part]]
    images_NCHW = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    labels_N = np.concatenate([labels for _, labels in batches])
    images_NHWC = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1))
    return _checked(images_NHWC, labels_N, _CIFAR_CLASSES[dataset], str(root))


def read_cifar_classes(config: "DataConfig") -> tuple[str, ...]:
    """Names of the classes of CIFAR-10 or CIFAR-100.

    Raises:
        UserError: the file with the names is missing or damaged.
    """
    folder = _folder(config)
    file_name, key = _CIFAR_NAMES[config.dataset]
    path = folder / _CIFAR_FOLDERS[config.dataset] / file_name
    return tuple(map(str, _read_cifar_pickle(folder, path, config.dataset)[key]))


def _folder(config: "DataConfig") -> Path:
    """The folder of the images, after a download if the config allows one."""
    assert config.data_dir is not None
    if config.download:
        _download(config.dataset, config.data_dir)
    if not os.path.isdir(config.data_dir):
        raise UserError(f"data_dir: {config.data_dir}: no such folder; name the folder of '{config.dataset}'")
    return config.data_dir


def _find_idx(folder: Path, name: str) -> Path:
    for candidate in (folder, folder / "FashionMNIST" / "raw"):
        for path in (candidate / name, candidate / f"{name}.gz"):
            if path.is_file():
                return path
    raise _missing(folder, name, "fashion_mnist")


def _read_idx(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    content = read_file(path, "images")
    try:
        if path.suffix == ".gz":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MAX_IDX_BYTES)
        magic, *shape = np.frombuffer(content, ">i4", count=num_dimensions + 1).tolist()
        if magic != _IDX_MAGIC[num_dimensions]:
            raise ValueError(f"its first number is {magic}")
        values = np.frombuffer(content, np.uint8, offset=4 * (num_dimensions + 1)).reshape(shape)
        return values.copy()  # writable, as torch asks
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from None


class _CifarUnpickler(pickle.Unpickler):
    """Admits only dictionaries, lists, numbers, strings and numpy arrays, because a pickle can run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it names the encoding {encoding}")
    return text.encode("latin1")


def _read_cifar_file(folder: Path, path: Path, dataset: str) -> Arrays:
    content = _read_cifar_pickle(folder, path, dataset)
    try:
        labels = content["labels" if "labels" in content else "fine_labels"]
        images = np.asarray(content["data"])
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
            raise ValueError(f"its images are {images.dtype} of shape {images.shape}")
        return images, np.asarray(labels, np.uint8)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from None


def _read_cifar_pickle(folder: Path, path: Path, dataset: str) -> dict[str, Any]:
    if not path.is_file():
        raise _missing(folder, str(path.relative_to(folder)), dataset)
    stored = read_file(path, "images")
    try:
        check_pickle(stored)
        content = _CifarUnpickler(io.BytesIO(stored), encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
        return content
    # A damaged pickle can raise almost anything.
    except Exception as error:
        raise _damaged(path, error) from None


def _checked(images: NDArray[np.uint8], labels: NDArray[np.uint8], num_classes: int, where: str) -> Arrays:
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images)} images but {len(labels)} labels; get the files again")
    if len(labels) and labels.max() >= num_classes:
        raise UserError(f"{where}: label {labels.max()}; must be below {num_classes}; get the files again")
    return images, labels


def _download(dataset: str, folder: Path) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        if dataset == "fashion_mnist":
            datasets.FashionMNIST(str(folder), download=True)
        elif not (folder / _CIFAR_FOLDERS[dataset]).is_dir():
            source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]
            # Do not use the class itself, which would unpickle the download.
            download_and_extract_archive(
                source.url, str(folder), filename=source.filename, md5=source.tgz_md5
            )
    except (OSError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(f"download: cannot get '{dataset}' ({reason}); put its files into {folder}") from None


def _missing(folder: Path, name: str, dataset: str) -> UserError:
    return UserError(
        f"data_dir: {folder}: lacks {name} of '{dataset}'; put it there, or set download: true to get it"
    )


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged ({error}); get the file again")
