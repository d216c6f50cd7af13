"""What is said about images that can be used and may yet be wrong: copies, sizes, folders of one pattern."""

import hashlib
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data import image_doubts
from nas.data.image_doubts import find_doubts, shorter_side
from nas.data.image_lists import list_folder
from nas.data.image_source import fingerprint_data, list_images
from nas.data.training_data import PARTS


def write_images(folder, num, size=(8, 8), suffix="bmp"):
    """Noise, never the same twice; as bitmaps of one size, all files have one size, too."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(folder).encode()))
    for number in range(num):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{suffix}")


@pytest.fixture
def root(tmp_path):
    for part in PARTS:
        for name in "ab":
            write_images(tmp_path / part / name, 4)
    return tmp_path


def doubts(root):
    return find_doubts(list_folder(DataConfig(dataset="image_folder", data_dir=root), PARTS))


def test_nothing_is_said_of_images_that_all_differ(root):
    assert doubts(root) == []


def test_copies_across_parts_and_classes_and_within_one_have_a_line_each_with_an_example(root):
    shutil.copy(root / "train" / "a" / "0.bmp", root / "test" / "a" / "other.bmp")
    os.link(root / "train" / "b" / "1.bmp", root / "test" / "b" / "linked.bmp")
    shutil.copy(root / "train" / "a" / "2.bmp", root / "train" / "b" / "other.bmp")
    (root / "train" / "b" / "linked.bmp").symlink_to(root / "train" / "b" / "3.bmp")
    parts, labels, twice = doubts(root)
    train = root / "train"
    assert "copies of training images among the test images: 2, " in parts
    assert f"{train}/a/0.bmp and {root}/test/a/other.bmp" in parts
    assert "copies of images in other classes: 1, " in labels
    assert f"{train}/a/2.bmp and {train}/b/other.bmp" in labels
    assert "copies of images: 1, " in twice
    assert f"{train}/b/3.bmp and {train}/b/linked.bmp" in twice


def test_files_of_one_size_are_not_compared_if_that_takes_long_nor_ever_those_of_their_own(root, monkeypatch):
    shutil.copy(root / "train" / "a" / "0.bmp", root / "train" / "a" / "copy.bmp")
    total = sum(path.stat().st_size for path in root.rglob("*.bmp"))
    monkeypatch.setattr(image_doubts, "MAX_COMPARED_BYTES", total)
    assert len(doubts(root)) == 1
    monkeypatch.setattr(image_doubts, "MAX_COMPARED_BYTES", total - 1)
    assert doubts(root) == []
    monkeypatch.setattr(image_doubts, "MAX_COMPARED_BYTES", 0)
    for number, path in enumerate(sorted(root.rglob("*.bmp"))):
        path.write_bytes(b"x" * (number + 1))
    assert doubts(root) == []


def test_classes_that_hold_the_same_folders_may_be_parts(tmp_path):
    for name in ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"):
        write_images(tmp_path / name, 8)
    (line,) = doubts(tmp_path)
    assert "(fold1, fold2) hold the same folders (cat, dog)" in line
    write_images(tmp_path / "fold2" / "bird", 8)
    assert doubts(tmp_path) == []


def test_classes_whose_names_differ_in_capital_letters_only_have_a_line(tmp_path):
    for name in ("Cat", "cat", "dog"):
        write_images(tmp_path / "train" / name, 4)
    (line,) = find_doubts(list_folder(DataConfig(dataset="image_folder", data_dir=tmp_path), ("train",)))
    assert "classes Cat and cat differ in capital letters only" in line


def test_the_size_of_images_is_the_median_of_their_shorter_sides(tmp_path):
    for name, size in (("a", (40, 30)), ("b", (28, 60)), ("c", (500, 900))):
        write_images(tmp_path / "train" / name, 1, size)
    (tmp_path / "train" / "a" / "broken.png").write_text("no image")
    listing = list_folder(DataConfig(dataset="image_folder", data_dir=tmp_path), ["train"])
    assert shorter_side(listing["train"]) == 30


# Fingerprints


def fingerprint(folder):
    return fingerprint_data(DataConfig(dataset="image_folder", data_dir=folder))


def test_two_data_sets_of_equal_names_sizes_and_labels_are_told_apart(tmp_path):
    for name in ("A/x", "A/y", "B/x", "B/y"):
        write_images(tmp_path / name, 5)
    listings = [
        list_images(DataConfig(dataset="image_folder", data_dir=tmp_path / name), ["train"])["train"]
        for name in "AB"
    ]
    one, other = ((files.paths, files.sizes_bytes_N.tolist(), files.labels_N.tolist()) for files in listings)
    assert one == other
    assert fingerprint(tmp_path / "A") != fingerprint(tmp_path / "B")
    shutil.copytree(tmp_path / "A", tmp_path / "C")
    assert fingerprint(tmp_path / "A") == fingerprint(tmp_path / "C")


def test_where_sizes_tell_data_sets_apart_paths_sizes_and_labels_are_the_whole_fingerprint(tmp_path):
    rows = []
    for label, name in enumerate("ab"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            size = 1 + number + 20 * label
            (tmp_path / "train" / name / f"{number:02}.png").write_bytes(os.urandom(size))
            rows.append(f"{name}/{number:02}.png\0{size}\0{label}")
    assert fingerprint(tmp_path) == hashlib.sha256("\n".join(rows).encode()).hexdigest()
