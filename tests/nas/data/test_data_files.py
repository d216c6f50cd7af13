"""Image files: class folders, lists, broken files, worker processes."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import SearchConfig
from nas.data.image_decoding import read_image
from nas.data.image_source import fingerprint_data
from nas.data.search_data import load_search_data
from nas.foundation.errors import SkippedImagesWarning, UserError
from nas.space.macro_space import get_space
from nas.supernet.supernet import Supernet

NUM_PER_CLASS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def write_image(path, color, size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(color)).integers(0, 40, (size[1], size[0], 3))
    image = Image.fromarray((np.array(color) + noise).astype(np.uint8)).convert(mode)
    image.save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes of six JPEGs, red and blue, all of them for training."""
    for name, channel in (("red", 0), ("blue", 2)):
        for number in range(NUM_PER_CLASS):
            color = [30 * number * (c == channel) for c in range(3)]
            write_image(tmp_path / "images" / "train" / name / f"{number}.jpg", color)
    return tmp_path / "images" / "train"


@pytest.fixture
def image_list(folder):
    def write(*lines):
        path = folder.parent / "train.txt"
        names = [f"{name}/{n}.jpg {label}" for label, name in enumerate(("red", "blue")) for n in range(6)]
        path.write_text("\n".join([*names, *lines]) + "\n")
        return path

    return write


def make_config(folder, **fields):
    defaults = {
        "space": "paper",
        "target_latency_ms": 1.0,
        "dataset": "image_folder",
        "batch_size": 2,
        "arch_fraction": 0.34,
    }
    is_part = folder.name == "train" and "train_list" not in fields
    return SearchConfig(**defaults | {"data_dir": folder.parent if is_part else folder} | fields)


def all_images(batches):
    return torch.cat([images for images, _ in batches])


def test_class_folders_become_labels_in_alphabetical_order(folder):
    data = load_search_data(make_config(folder), 24)
    assert (data.num_classes, data.num_weight_images, data.num_arch_images) == (2, 8, 4)
    for images, labels in data.val_batches():
        assert images.shape == (2, 3, 24, 24)
        assert images.is_contiguous(memory_format=torch.channels_last)
        is_red = images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2)) + 0.01
        assert not is_red[labels == 0].any()  # "blue" comes first


def test_list_and_folder_of_the_same_images_give_the_same_batches(folder, image_list):
    lines = [f"{name}/{n}.jpg {label}" for label, name in enumerate(("blue", "red")) for n in range(6)]
    image_list().write_text("\n\n".join(lines))
    list_config = make_config(folder, dataset="image_list", train_list=folder.parent / "train.txt")
    from_list, from_folder = load_search_data(list_config, 24), load_search_data(make_config(folder), 24)
    assert torch.equal(all_images(from_list.val_batches()), all_images(from_folder.val_batches()))
    assert from_list.fingerprint == from_folder.fingerprint


def test_order_of_a_list_changes_neither_the_fingerprint_nor_any_batch(folder, image_list):
    path = image_list()
    config = make_config(folder, dataset="image_list", train_list=path, max_train_images=9)
    by_class = load_search_data(config, 24)
    lines = path.read_text().splitlines()
    order = torch.randperm(len(lines), generator=seeded(4)).tolist()
    path.write_text("\n".join(lines[number] for number in order))
    shuffled = load_search_data(config, 24)
    assert by_class.fingerprint == shuffled.fingerprint
    assert torch.equal(all_images(by_class.val_batches()), all_images(shuffled.val_batches()))
    assert torch.equal(
        *(all_images(data.weight_batches(seeded(7))) for data in (by_class, shuffled)),
    )


def test_weights_of_a_supernet_have_the_same_accuracy_on_a_list_by_class_and_shuffled(tmp_path):
    """Images of two classes, told apart badly by weights that are not trained, so that batches matter."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(120):
        label = number // 60
        pixels = rng.integers(0, 160 + 60 * label, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png {label}")
    torch.manual_seed(0)
    supernet = Supernet(get_space("micro"), 2)
    path = supernet.log_alpha().argmax(-1).tolist()

    def accuracy(lines):
        (tmp_path / "list.txt").write_text("\n".join(lines))
        fields = {"dataset": "image_list", "train_list": tmp_path / "list.txt", "arch_fraction": 0.5}
        data = load_search_data(make_config(tmp_path, batch_size=17, **fields), 28)
        with torch.no_grad():
            logits = torch.cat([supernet(images, path) for images, _ in data.val_batches()])
        labels = torch.cat([labels for _, labels in data.val_batches()])
        return logits, (logits.argmax(-1) == labels).double().mean()

    shuffled = [lines[number] for number in rng.permutation(len(lines))]
    for one, other in zip(accuracy(lines), accuracy(shuffled), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip", "none"])
def test_batches_do_not_depend_on_worker_processes_or_on_the_global_generator(folder, augmentation):
    runs = []
    for num_workers in (0, 2):
        torch.manual_seed(num_workers)
        before = torch.get_rng_state()
        data = load_search_data(
            make_config(folder, num_data_workers=num_workers, augmentation=augmentation), 24
        )
        arch_batches = data.arch_batches(seeded(8))
        runs.append(
            torch.cat(
                [all_images(data.weight_batches(seeded(7))), *(next(arch_batches)[0] for _ in range(5))]
            )
        )
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*runs)


def test_augmented_samples_differ_from_epoch_to_epoch(folder):
    data = load_search_data(make_config(folder), 24)
    first, second = (all_images(data.weight_batches(seeded(seed))) for seed in (1, 2))
    assert not torch.equal(first.flatten(1).sum(1).sort().values, second.flatten(1).sum(1).sort().values)


def test_arch_images_are_resized_and_cropped_at_the_centre(folder):
    data = load_search_data(make_config(folder, batch_size=4), 224)
    split = replace(data.arch_split, indices_K=data.arch_split.indices_K[:1])
    image = read_image(split.images.files.path(int(split.indices_K[0])))
    resized = image.resize((341, 256), Image.Resampling.BILINEAR)
    left, top = round((341 - 224) / 2), 16
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    ((images, _),) = split.evaluation_batches()
    shown = images[0].permute(1, 2, 0).numpy() * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    np.testing.assert_allclose(shown * 255, expected, atol=1.01)


def damage(folder):
    """One truncated file, one that is text, one that is empty; returns their names."""
    truncated = folder / "red" / "0.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (folder / "red" / "1.jpg").write_text("not an image")
    (folder / "blue" / "2.jpg").write_bytes(b"")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("content", [b"not an image", None], ids=["text", "truncated"])
def test_broken_file_is_named_in_one_line(folder, num_workers, content):
    path = folder / "red" / "3.jpg"
    path.write_bytes(content or path.read_bytes()[:-200])
    data = load_search_data(make_config(folder, num_data_workers=num_workers, batch_size=4), 24)
    with pytest.raises(UserError) as caught:
        list(itertools.chain(data.weight_batches(seeded()), data.val_batches()))
    assert str(caught.value).startswith(f"{path}: not an image, or damaged; ")
    assert "\n" not in str(caught.value)


def test_empty_file_is_found_before_anything_is_decoded(folder):
    (folder / "blue" / "2.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"blue/2\.jpg: the file is empty"):
        load_search_data(make_config(folder), 24)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_files_are_skipped_and_counted_when_asked(folder, num_workers):
    damage(folder)
    config = make_config(folder, skip_broken_images=True, num_data_workers=num_workers)
    first = folder / "blue" / "2.jpg"
    with pytest.warns(
        SkippedImagesWarning, match=f"3 of 12 image files are left out, for instance {first}: "
    ):
        data = load_search_data(config, 24)
    assert data.num_skipped_images == 3
    assert data.num_weight_images + data.num_arch_images == 9
    assert len(all_images(data.val_batches())) == data.num_arch_images


def test_missing_files_of_a_list_are_named_or_skipped(folder, image_list):
    config = make_config(folder, dataset="image_list", train_list=image_list("red/gone.jpg 0"))
    with pytest.raises(UserError, match=r"train\.txt:13: .*red/gone\.jpg: no such file"):
        load_search_data(config, 24)
    skipping = config.model_copy(update={"skip_broken_images": True})
    with pytest.warns(SkippedImagesWarning, match=r"1 of 13 .*red/gone\.jpg"):
        assert load_search_data(skipping, 24).num_skipped_images == 1


def test_class_whose_files_are_all_broken_is_refused(folder):
    for path in (folder / "red").iterdir():
        path.write_text("no")
    with (
        pytest.warns(SkippedImagesWarning, match="6 of 12"),
        pytest.raises(UserError, match="class 1 has 0 training images"),
    ):
        load_search_data(make_config(folder, skip_broken_images=True), 24)


def test_test_images_are_never_opened(folder):
    images = folder.parent / "parts"
    images.mkdir()
    folder.rename(images / "train")
    (images / "test" / "red").mkdir(parents=True)
    (images / "test" / "red" / "broken.jpg").write_text("no")
    data = load_search_data(make_config(images), 24)
    assert data.num_weight_images + data.num_arch_images == 12
    list(data.weight_batches(seeded()))
    list(data.val_batches())


def test_fingerprint_changes_with_a_path_a_size_and_a_label(folder, image_list):
    config = make_config(folder, dataset="image_list", train_list=image_list())
    fingerprints = [fingerprint_data(config)]
    shutil.copy(folder / "red" / "0.jpg", folder / "red" / "copy.jpg")
    image_list("red/copy.jpg 1")
    fingerprints.append(fingerprint_data(config))
    image_list("red/copy.jpg 0")
    fingerprints.append(fingerprint_data(config))
    with (folder / "red" / "0.jpg").open("ab") as file:
        file.write(b"x")
    fingerprints.append(fingerprint_data(config))
    assert len(set(fingerprints)) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("red/0.jpg", r"train\.txt:13: 'red/0\.jpg'; must be a path and a label"),
        ("red/0.jpg one", "must be a path and a label"),
        ("red/0.jpg -1", "must be a path and a label"),
        ("red/0.jpg 99999999999", "must be a path and a label"),
        ("../secret.jpg 0", r"train\.txt:13: '\.\./secret\.jpg' leaves data_dir"),
        ("/etc/secret.jpg 0", "leaves data_dir"),
        ("red/new.jpg 4", "no image of class 2, but one of class 4"),
    ],
)
def test_malformed_list_lines_are_named(folder, image_list, line, message):
    config = make_config(folder, dataset="image_list", train_list=image_list(line))
    with pytest.raises(UserError, match=message):
        load_search_data(config, 24)


def test_paths_of_a_list_may_hold_spaces(folder, image_list):
    (folder / "red" / "0.jpg").rename(folder / "red" / "a b.jpg")
    path = image_list()
    path.write_text(path.read_text().replace("red/0.jpg", "red/a b.jpg"))
    load_search_data(make_config(folder, dataset="image_list", train_list=path), 24)


@pytest.mark.parametrize(("content", "message"), [(b"", "holds no images"), (b"\xff\xfe 0", "not text")])
def test_lists_that_are_no_lists_are_refused(folder, image_list, content, message):
    path = image_list()
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_search_data(make_config(folder, dataset="image_list", train_list=path), 24)


def test_missing_list_and_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"gone\.txt: cannot read a list"):
        load_search_data(make_config(folder, dataset="image_list", train_list=tmp_path / "gone.txt"), 24)
    with pytest.raises(UserError, match="gone: no such folder"):
        load_search_data(make_config(tmp_path / "gone"), 24)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 class folders"):
        load_search_data(make_config(tmp_path / "empty"), 24)


def test_class_folder_without_images_is_named_and_other_files_are_ignored(folder):
    (folder / "red" / "notes.txt").write_text("ignored")
    (folder / "red" / "._0.jpg").write_text("ignored")
    assert len(load_search_data(make_config(folder), 24).weight_split.images.files) == 12
    (folder / "green").mkdir()
    with pytest.raises(UserError, match="green: holds no images"):
        load_search_data(make_config(folder), 24)
