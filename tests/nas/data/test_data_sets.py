"""Files of the well-known datasets, read from a folder."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from nas.config import DataConfig
from nas.data.dataset_readers import read_idx_files
from nas.data.datasets import DATASETS
from nas.foundation.errors import UserError


def read_images(config, part):
    return DATASETS[config.dataset].arrays(config, part)


def write_idx(path, array):
    header = np.array([0x0800 + array.ndim, *array.shape], ">i4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion_mnist(folder, suffix=""):
    rng = np.random.default_rng(0)
    for prefix, num in (("train", 12), ("t10k", 5)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (num, 28, 28)))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(num) % 10)


def write_cifar(folder, dataset, num=4):
    rng = np.random.default_rng(0)
    root = folder / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[dataset]
    root.mkdir(parents=True)
    key = {"cifar10": "labels", "cifar100": "fine_labels"}[dataset]
    names = (
        [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
        if dataset == "cifar10"
        else ["train", "test"]
    )
    for name in names:
        content = {"data": rng.integers(0, 256, (num, 3072)).astype(np.uint8), key: list(range(num))}
        (root / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inner", ["", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_both_layouts_compressed_or_not(tmp_path, suffix, inner):
    write_fashion_mnist(tmp_path / inner, suffix)
    images, labels = read_idx_files(tmp_path, "test")
    assert images.flags.writeable, "torch warns of arrays that are not"
    assert images.shape == (5, 28, 28)
    assert labels.tolist() == [0, 1, 2, 3, 4]


def test_fashion_mnist_agrees_with_torchvision(tmp_path):
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    reference = datasets.FashionMNIST(tmp_path, train=True)
    images, labels = read_images(DataConfig(dataset="fashion_mnist", data_dir=tmp_path), "train")
    assert np.array_equal(images[..., 0], reference.data.numpy())
    assert np.array_equal(labels, reference.targets.numpy())


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_cifar_agrees_with_torchvision(tmp_path, dataset, monkeypatch):
    write_cifar(tmp_path, dataset)
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]
    monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    monkeypatch.setattr(source, "_load_meta", lambda self: None)
    reference = source(tmp_path, train=True)
    images, labels = read_images(DataConfig(dataset=dataset, data_dir=tmp_path), "train")
    assert np.array_equal(images, reference.data)
    assert labels.tolist() == reference.targets


@pytest.mark.parametrize(
    ("dataset", "write", "test_files"),
    [
        ("fashion_mnist", write_fashion_mnist, "t10k-*"),
        ("cifar10", lambda folder: write_cifar(folder, "cifar10"), "*/test_batch"),
    ],
)
def test_training_images_are_read_without_the_test_files(tmp_path, dataset, write, test_files):
    write(tmp_path)
    for path in tmp_path.glob(test_files):
        path.unlink()
    config = DataConfig(dataset=dataset, data_dir=tmp_path)
    read_images(config, "train")
    with pytest.raises(UserError, match="set download: true"):
        read_images(config, "test")


@pytest.mark.parametrize(
    ("dataset", "missing"),
    [
        ("fashion_mnist", "train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
    ],
)
def test_missing_files_are_named_with_the_remedy(tmp_path, dataset, missing):
    with pytest.raises(UserError, match=f"lacks {missing} .*download: true"):
        read_images(DataConfig(dataset=dataset, data_dir=tmp_path), "train")
    with pytest.raises(UserError, match="gone: no such folder"):
        read_images(DataConfig(dataset=dataset, data_dir=tmp_path / "gone"), "train")


@pytest.mark.parametrize("cut", [0, 3, 300, -1])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_fashion_mnist_is_named(tmp_path, cut, suffix):
    write_fashion_mnist(tmp_path, suffix)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"train-images.*damaged"):
        read_images(DataConfig(dataset="fashion_mnist", data_dir=tmp_path), "train")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        pickle.dumps([1, 2]),
        pickle.dumps({"labels": [1]}),
        pickle.dumps({"labels": [1], "data": np.zeros((1, 5), np.uint8)}),
        pickle.dumps({"labels": [-1], "data": np.zeros((1, 3072), np.uint8)}),
        pickle.dumps({"labels": [1], "data": np.zeros((1, 3072))}),
    ],
)
def test_damaged_cifar_is_named(tmp_path, content):
    root = write_cifar(tmp_path, "cifar10")
    (root / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_3: damaged"):
        read_images(DataConfig(dataset="cifar10", data_dir=tmp_path), "train")


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_cifar_files_cannot_run_code(tmp_path):
    root = write_cifar(tmp_path, "cifar10")
    (root / "data_batch_1").write_bytes(pickle.dumps({"data": _Malicious(tmp_path / "ran")}))
    with pytest.raises(UserError, match="data_batch_1: damaged"):
        read_images(DataConfig(dataset="cifar10", data_dir=tmp_path), "train")
    assert not (tmp_path / "ran").exists()


def test_labels_out_of_range_and_of_another_number_are_refused(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.full(12, 10))
    config = DataConfig(dataset="fashion_mnist", data_dir=tmp_path)
    with pytest.raises(UserError, match="label 10; must be below 10"):
        read_images(config, "train")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(11))
    with pytest.raises(UserError, match="12 images but 11 labels"):
        read_images(config, "train")
