"""Splits, batches and their reproducibility, on the images of the package."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.config import SearchConfig
from nas.data import dataset_readers
from nas.data.image_source import fingerprint_data, first_of_each_class
from nas.data.search_data import load_search_data
from nas.data.splits import split_by_class
from nas.foundation.errors import UserError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def make_config(**fields):
    return SearchConfig(**{"target_latency_ms": 1.0, "space": "micro", "batch_size": 64} | fields)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_bundled_file_holds_the_first_500_and_100_images_of_each_class():
    with np.load(dataset_readers.BUNDLED_FILE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in sorted(file.files)}
    assert arrays["train_images"].shape == (5000, 28, 28)
    assert arrays["test_images"].shape == (1000, 28, 28)
    assert np.bincount(arrays["train_labels"]).tolist() == [500] * 10
    assert np.bincount(arrays["test_labels"]).tolist() == [100] * 10
    assert all(array.dtype == np.uint8 for array in arrays.values())
    content = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    assert content == "e51025659409a778f6ba774cc8eb3ffb1c3eb83e2ea1387f107474750da975b6"
    assert dataset_readers.BUNDLED_FILE.stat().st_size < 2_700_000
    assert "Zalando SE" in dataset_readers.BUNDLED_FILE.with_suffix(".LICENSE").read_text()


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_script_makes_the_bundled_images_again(tmp_path):
    script = Path(__file__).parents[3] / "scripts" / "make_fashion_mnist_subset.py"
    out = tmp_path / "subset.npz"
    subprocess.run([sys.executable, script, DEBIAN_FOLDER, "--out", out], check=True, capture_output=True)
    with np.load(out) as made, np.load(dataset_readers.BUNDLED_FILE) as bundled:
        assert sorted(made.files) == sorted(bundled.files)
        assert all(np.array_equal(made[name], bundled[name]) for name in made.files)


def test_split_has_equal_shares_of_each_class_and_covers_all_images_once():
    labels_N = torch.tensor([0] * 10 + [1] * 5 + [2] * 2)[torch.randperm(17, generator=seeded(3))]
    rest, held_out = split_by_class(labels_N, 3, 0.2, seed=0)
    assert torch.bincount(labels_N[held_out]).tolist() == [2, 1, 1]
    assert sorted(torch.cat([rest, held_out]).tolist()) == list(range(17))


def test_split_depends_on_the_seed_and_on_nothing_else():
    labels_N = torch.arange(1000) % 10
    torch.manual_seed(1)
    _, first = split_by_class(labels_N, 10, 0.2, seed=5)
    torch.manual_seed(2)
    _, again = split_by_class(labels_N, 10, 0.2, seed=5)
    _, other = split_by_class(labels_N, 10, 0.2, seed=6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 2, 2]])
def test_class_of_fewer_than_two_images_is_refused(labels):
    with pytest.raises(UserError, match="class 1 has"):
        split_by_class(torch.tensor(labels), 3, 0.5, seed=0)


def test_max_train_images_keeps_the_classes_shares_and_the_first_images():
    labels_N = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0, 0, 2])
    chosen = first_of_each_class(labels_N, 5)
    assert chosen.tolist() == [0, 1, 2, 3, 4]  # shares 3, 1.5, 0.5: the half goes to class 1, the first
    assert first_of_each_class(labels_N, None).tolist() == list(range(10))


def test_parts_of_a_search_are_disjoint_and_hold_all_training_images():
    data = load_search_data(make_config(arch_fraction=0.2), 28)
    assert (data.num_weight_images, data.num_arch_images, data.num_classes) == (4000, 1000, 10)
    chosen = torch.cat([data.weight_split.indices_K, data.arch_split.indices_K])
    assert sorted(chosen.tolist()) == list(range(5000))
    assert data.num_skipped_images == 0


def test_search_never_reads_test_images(monkeypatch, tmp_path):
    """The test arrays of this file are damaged: reading them raises."""
    with np.load(dataset_readers.BUNDLED_FILE) as file:
        train = {name: file[name][::10] for name in file.files if name.startswith("train")}
    np.savez(
        tmp_path / "damaged.npz", test_images=np.array([object()]), test_labels=np.array([object()]), **train
    )
    monkeypatch.setattr(dataset_readers, "BUNDLED_FILE", tmp_path / "damaged.npz")
    data = load_search_data(make_config(batch_size=50), 28)
    assert len(list(data.weight_batches(seeded()))) == 8
    assert sum(len(labels) for _, labels in data.val_batches()) == data.num_arch_images
    next(data.arch_batches(seeded()))
    with pytest.raises(UserError, match="damaged"):
        dataset_readers.read_bundled(make_config(), "test")


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "paper"])
@pytest.mark.parametrize("resolution", [28, 32])
def test_batches_are_normalized_rgb_in_channels_last(augmentation, resolution):
    data = load_search_data(make_config(augmentation=augmentation), resolution)
    images, labels = next(data.weight_batches(seeded()))
    assert images.shape == (64, 3, resolution, resolution)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0], images[:, 2])
    low, high = (0 - 0.2860) / 0.3530, (1 - 0.2860) / 0.3530
    assert low - 1e-5 <= images.min() < images.max() <= high + 1e-5


def test_normalized_images_have_mean_0_and_deviation_1():
    data = load_search_data(make_config(), 28)
    images = torch.cat([images for images, _ in data.val_batches()])
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


def test_val_batches_are_the_stored_held_out_images_each_once():
    data = load_search_data(make_config(batch_size=300), 28)
    with np.load(dataset_readers.BUNDLED_FILE) as file:
        stored = torch.from_numpy(file["train_images"])[data.arch_split.indices_K]
        labels = torch.from_numpy(file["train_labels"])[data.arch_split.indices_K]
    shown, shown_labels = (torch.cat(parts) for parts in zip(*data.val_batches(), strict=True))
    pixels = (shown[:, 1] * 0.3530 + 0.2860) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)

    def rows(images, labels):
        return sorted(zip(images.flatten(1).tolist(), labels.tolist(), strict=True))

    assert rows(pixels.round().byte(), shown_labels) == rows(stored, labels)


@pytest.mark.parametrize(("batch_size", "sizes"), [(300, [250] * 4), (333, [250] * 4), (999, [500, 500])])
def test_val_batches_are_of_equal_size_so_that_none_has_poor_statistics(batch_size, sizes):
    data = load_search_data(make_config(batch_size=batch_size), 28)
    assert [len(labels) for _, labels in data.val_batches()] == sizes


def test_val_batches_mix_the_classes_although_the_stored_labels_are_sorted():
    data = load_search_data(make_config(batch_size=100), 28)
    labels_N, indices_K = data.arch_split.images.labels_N, data.arch_split.indices_K
    by_class = indices_K[labels_N[indices_K].argsort(stable=True)]
    for indices in (indices_K, by_class):
        batches = list(replace(data.arch_split, indices_K=indices).evaluation_batches())
        counts = torch.stack([torch.bincount(labels, minlength=10) for _, labels in batches])
        # Ten per class and batch on average; 25 is five standard deviations away.
        assert counts.max() < 25
        assert counts.min() > 0


def test_order_of_val_batches_depends_on_the_seed_and_on_nothing_else():
    def labels_of(data):
        return torch.cat([labels for _, labels in data.val_batches()])

    data = load_search_data(make_config(), 28)
    first = labels_of(data)
    torch.manual_seed(5)
    next(data.arch_batches(seeded()))
    assert torch.equal(labels_of(data), first)
    other = replace(data.arch_split, config=make_config(seed=1))
    assert not torch.equal(torch.cat([labels for _, labels in other.evaluation_batches()]), first)


def test_weight_epoch_shows_each_image_at_most_once_in_full_batches():
    data = load_search_data(make_config(augmentation="none", batch_size=300), 28)
    data.weight_split.images.labels_N = torch.arange(5000)
    batches = [labels for _, labels in data.weight_batches(seeded())]
    assert [len(labels) for labels in batches] == [300] * 13
    shown = torch.cat(batches)
    assert len(shown.unique()) == len(shown)
    assert set(shown.tolist()) <= set(data.weight_split.indices_K.tolist())


def test_arch_batches_go_round_without_end_in_a_new_order_each_time():
    data = load_search_data(make_config(batch_size=500), 28)
    batches = data.arch_batches(seeded())
    rounds = [torch.cat([next(batches)[0], next(batches)[0]]).flatten(1).sum(1) for _ in range(3)]
    assert torch.equal(rounds[0].sort().values, rounds[1].sort().values)
    assert not torch.equal(rounds[0], rounds[1])
    assert not torch.equal(rounds[1], rounds[2])


@pytest.mark.parametrize("augmentation", ["crop_flip", "paper"])
def test_batches_depend_on_the_passed_generator_alone(augmentation):
    data = load_search_data(make_config(augmentation=augmentation), 28)

    def first_images(seed, disturb):
        generator = seeded(seed)
        batches = data.weight_batches(generator)
        if disturb:
            torch.rand(7)
            torch.rand(7, generator=generator)
        return next(batches)[0]

    before = torch.get_rng_state()
    images = first_images(1, disturb=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, first_images(1, disturb=True))
    assert not torch.equal(images, first_images(2, disturb=False))


def test_fingerprint_tells_the_images_apart_and_needs_no_split():
    config = make_config()
    fingerprint = load_search_data(config, 28).fingerprint
    assert fingerprint == fingerprint_data(make_config(seed=4, batch_size=8))
    assert fingerprint != fingerprint_data(make_config(max_train_images=1000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 1001}, "batch_size: 1001; only 1000 images are there for architecture steps"),
        ({"max_train_images": 15}, "class 5 has 1 training images"),
        ({"batch_size": 4500}, "only 4000 images are there for weight steps"),
    ],
)
def test_too_few_images_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        load_search_data(make_config(**fields), 28)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "cifar10"}, "data_dir: missing"),
        ({"dataset": "image_list", "data_dir": "x"}, "train_list"),
        ({"test_list": "x"}, "test_list: has no effect"),
        ({"download": True}, "download: has no effect"),
        ({"skip_broken_images": True}, "skip_broken_images: has no effect"),
    ],
)
def test_contradicting_data_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)
