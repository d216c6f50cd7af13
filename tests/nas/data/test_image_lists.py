"""What is listed of folders and text files: links, hidden files, lists for two kinds of steps."""

import os
import pickle
from collections import Counter

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from nas.config import DataConfig, SearchConfig, TrainConfig
from nas.data import image_lists
from nas.data.image_lists import FileList, ImageFile
from nas.data.image_source import fingerprint_data, list_images
from nas.data.search_data import load_search_data
from nas.data.training_data import PARTS, load_training_data
from nas.foundation.errors import UserError


def write_images(folder, num):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images, all of them for training."""
    root = tmp_path / "images" / "train"
    write_images(root / "a", 3)
    write_images(root / "b", 3)
    return root


def folder_config(folder, **fields):
    return DataConfig(dataset="image_folder", data_dir=folder.parent, **fields)


def listed_paths(folder):
    return list_images(folder_config(folder), ["train"])["train"].paths


def test_subfolders_and_linked_folders_of_a_class_belong_to_it(folder, tmp_path):
    write_images(folder / "a" / "more", 2)
    write_images(tmp_path / "elsewhere", 3)
    (folder / "b" / "session2").symlink_to(tmp_path / "elsewhere")
    (folder / "c").symlink_to(tmp_path / "other")
    write_images(tmp_path / "other", 1)
    counts = Counter(path.rpartition("/")[0] for path in listed_paths(folder))
    assert counts == {"a": 3, "a/more": 2, "b": 3, "b/session2": 3, "c": 1}


def test_hidden_files_and_folders_are_left_out_at_every_depth(folder):
    before = listed_paths(folder)
    write_images(folder / "a" / ".ipynb_checkpoints", 3)
    write_images(folder / "a" / "more" / ".cache" / "deep", 1)
    write_images(folder / ".hidden", 1)
    (folder / "b" / "._0.png").write_bytes(b"x")
    assert listed_paths(folder) == before


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/loop", "a"), ("a/up", "."), ("b/twin", "a"), ("c", "a")],
    ids=["itself", "parent", "other class", "class"],
)
def test_links_that_would_count_images_twice_are_refused_in_one_line(folder, link, target):
    (folder / link).symlink_to(folder / target, target_is_directory=True)
    with pytest.raises(UserError) as caught:
        listed_paths(folder)
    assert "the same folder as" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_are_found_by_suffix_and_folders_with_such_names_are_folders(folder):
    (folder / "a" / "notes.txt").write_text("x")
    (folder / "a" / "jpg").write_text("x")
    write_images(folder / "a" / "scans.png", 1)
    (folder / "a" / "0.png").rename(folder / "a" / "0.PNG")
    assert [path for path in listed_paths(folder) if path.startswith("a")] == [
        *("a/0.PNG", "a/1.png", "a/2.png", "a/scans.png/0.png"),
    ]


def test_a_broken_link_to_an_image_is_named_or_skipped(folder):
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError, match=r"a/gone\.png: no such file"):
        listed_paths(folder)
    files = list_images(folder_config(folder, skip_broken_images=True), ["train"])["train"]
    sizes = dict(zip(files.paths, files.sizes_bytes_N.tolist(), strict=True))
    assert sizes["a/gone.png"] == image_lists.MISSING
    assert sizes["a/0.png"] == (folder / "a" / "0.png").stat().st_size


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_a_folder_that_cannot_be_read_is_named(folder):
    write_images(folder / "a" / "closed", 1)
    (folder / "a" / "closed").chmod(0)
    with pytest.raises(UserError, match="a/closed: cannot list it"):
        listed_paths(folder)


def test_names_that_are_no_text_have_a_fingerprint(folder):
    os.rename(folder / "a" / "0.png", os.fsencode(folder / "a") + b"/\xff.png")
    assert len(fingerprint_data(folder_config(folder))) == 64


# Class folders that no folder divides into parts


def divided(folder):
    return list_images(DataConfig(dataset="image_folder", data_dir=folder), PARTS)


@pytest.fixture
def classes(tmp_path):
    """Two classes of 20 and of 4 images."""
    write_images(tmp_path / "flowers" / "daisy", 20)
    write_images(tmp_path / "flowers" / "rose", 4)
    return tmp_path / "flowers"


def test_a_fifth_of_each_class_is_set_apart_for_tests_and_nothing_gets_lost(classes):
    listing = divided(classes)
    train, test = (listing[part] for part in PARTS)
    assert torch.bincount(train.labels_N).tolist() == [16, 3]
    assert torch.bincount(test.labels_N).tolist() == [4, 1]
    files = sorted(path.relative_to(classes).as_posix() for path in classes.rglob("*.png"))
    assert sorted(train.paths + test.paths) == files


def test_searches_never_get_the_images_that_trainings_are_tested_on(classes):
    tested = set(divided(classes)["test"].paths)
    for seed in range(3):
        config = search_config({"dataset": "image_folder", "data_dir": classes}, seed=seed)
        data = load_search_data(config, 8)
        assert not tested & {*paths_of(data.weight_split), *paths_of(data.arch_split)}
        training = training_config({"dataset": "image_folder", "data_dir": classes}, seed=seed)
        assert set(paths_of(load_training_data(training, 8).test_split)) == tested


def test_who_is_set_apart_depends_neither_on_the_place_nor_much_on_other_images(classes):
    before = divided(classes)["test"].paths
    moved = classes.rename(classes.parent / "elsewhere")
    assert divided(moved)["test"].paths == before
    write_images(moved / "daisy" / "more", 1)
    after = divided(moved)["test"].paths
    assert len(set(before) - set(after)) <= 1


def test_a_class_too_small_to_be_divided_is_refused(classes):
    for path in sorted((classes / "rose").iterdir())[:2]:
        path.unlink()
    with pytest.raises(UserError, match=r"rose: holds 2 images; at least 3 are needed"):
        divided(classes)


def test_a_test_folder_is_missed_where_there_is_one_for_training(folder):
    assert list_images(folder_config(folder), ["train"])["train"].is_divided is False
    with pytest.raises(UserError, match="has train, but no test images"):
        list_images(folder_config(folder), PARTS)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["Train/a", "Train/b", "Test/a", "Test/b"], "Test, Train"),
        (["training/a", "training/b", "val/a", "val/b", "other"], "training, val"),
        (["train_set/a", "train_set/b", "test-images/a", "test-images/b"], "test-images, train_set"),
        (["Train", "Test"], "Test, Train"),
        (["a/train", "a/test", "b/train", "b/test"], "a/test, a/train, b/test, b/train"),
    ],
    ids=["capitals", "validation", "suffixes", "without classes", "below classes"],
)
def test_folders_that_are_parts_of_a_data_set_are_not_taken_for_classes(tmp_path, folders, named):
    for name in folders:
        write_images(tmp_path / "images" / name, 3)
    with pytest.raises(UserError) as caught:
        divided(tmp_path / "images")
    assert f": {named}: parts of a data set" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_may_be_called_like_a_part_if_it_holds_images(tmp_path):
    for name in ("bus", "test", "trainer/old"):
        write_images(tmp_path / "images" / name, 5)
    assert divided(tmp_path / "images")["train"].class_names == ("bus", "test", "trainer")
    (tmp_path / "images" / "train").mkdir()
    for name in ("bus", "train"):
        write_images(tmp_path / "images" / "train" / name / "session", 5)
    config = DataConfig(dataset="image_folder", data_dir=tmp_path / "images")
    assert list_images(config, ["train"])["train"].class_names == ("bus", "train")


# Lists


@pytest.fixture
def lists(folder):
    """Writes one list per keyword and returns the fields that name them."""

    def write(**lines):
        paths = {}
        for name, rows in lines.items():
            paths[name] = folder.parent / f"{name}.txt"
            paths[name].write_text("\n".join(rows) + "\n")
        return {"dataset": "image_list", "data_dir": folder} | paths

    return write


def search_config(fields, **more):
    return SearchConfig(**{"space": "paper", "target_latency_ms": 1.0, "batch_size": 1} | fields | more)


ALL = [f"{name}/{number}.png {label}" for label, name in enumerate("ab") for number in range(3)]


def paths_of(split):
    return sorted(split.images.files.paths[index] for index in split.indices_K.tolist())


def test_two_lists_name_the_images_of_weight_and_of_architecture_steps(lists):
    fields = lists(train_list=[ALL[0], ALL[3], ALL[4]], arch_list=[ALL[5], ALL[1]])
    data = load_search_data(search_config(fields), 8)
    assert paths_of(data.weight_split) == ["a/0.png", "b/0.png", "b/1.png"]
    assert paths_of(data.arch_split) == ["a/1.png", "b/2.png"]
    assert data.num_classes == 2
    labels = torch.cat([labels for _, labels in data.val_batches()])
    assert sorted(labels.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("line_end", "encoding"), [("\n", "utf-8-sig"), ("\r\n", "utf-8"), ("\r\n", "utf-8-sig")]
)
def test_lists_of_other_programs_name_the_same_images(lists, line_end, encoding):
    fields = lists(train_list=ALL)
    expected = list_images(DataConfig(**fields), ["train"])["train"]
    lines = [line.replace(" ", "\t") for line in ALL]
    fields["train_list"].write_bytes(line_end.join(lines).encode(encoding))
    found = list_images(DataConfig(**fields), ["train"])["train"]
    assert found.paths == expected.paths
    assert found.labels_N.tolist() == expected.labels_N.tolist()


def test_a_list_separated_by_commas_is_refused_with_the_way_to_write_it(lists):
    fields = lists(train_list=[line.replace(" ", ",") for line in ALL])
    with pytest.raises(
        UserError,
        match=r"train_list\.txt:1: 'a/0\.png,0'; must be a path and a label, .* a space",
    ):
        list_images(DataConfig(**fields), ["train"])


def test_split_by_lists_depends_neither_on_the_seed_nor_on_the_order_of_lines(lists):
    fields = lists(train_list=ALL[:4], arch_list=ALL[4:])
    splits = [load_search_data(search_config(fields, seed=seed), 8) for seed in (0, 1)]
    lists(train_list=ALL[:4][::-1], arch_list=ALL[4:][::-1])
    splits.append(load_search_data(search_config(fields), 8))
    assert len({tuple(paths_of(data.weight_split)) for data in splits}) == 1
    assert len({data.fingerprint for data in splits}) == 1


def test_classes_are_counted_over_both_lists(lists):
    fields = lists(train_list=[*ALL[:2], ALL[3]], arch_list=[ALL[2], *ALL[4:]])
    assert load_search_data(search_config(fields), 8).num_classes == 2


def test_a_class_of_which_weights_would_see_no_image_is_refused(lists):
    fields = lists(train_list=ALL[:3], arch_list=ALL[3:])
    with pytest.raises(UserError, match=r"train_list: .*: no image of class 1, but arch_list has some"):
        load_search_data(search_config(fields), 8)


def test_an_image_that_a_list_names_twice_is_refused_with_both_lines(lists):
    fields = lists(train_list=[*ALL, "./" + ALL[0]])
    with pytest.raises(UserError, match=r"train_list\.txt:7: 'a/0\.png' is also in .*train_list\.txt:1"):
        load_search_data(search_config(fields), 8)


def test_an_image_in_both_lists_is_refused_with_both_lines(lists):
    fields = lists(train_list=ALL[:4], arch_list=["b/1.png 1", "./b//0.png 1"])
    with pytest.raises(UserError) as caught:
        load_search_data(search_config(fields), 8)
    line = str(caught.value)
    assert "arch_list.txt:2" in line
    assert "train_list.txt:4" in line
    assert "'b/0.png'" in line
    assert "\n" not in line


def test_fingerprint_tells_which_list_names_an_image(lists):
    def fingerprint(num):
        mixed = [ALL[index] for index in (0, 3, 1, 4, 2, 5)]
        return fingerprint_data(search_config(lists(train_list=mixed[:num], arch_list=mixed[num:])))

    assert fingerprint(3) != fingerprint(4)
    assert fingerprint(3) != fingerprint_data(search_config(lists(train_list=ALL)))


def test_fewer_images_keep_the_shares_of_both_lists_and_classes(folder, lists):
    for name in "ab":
        write_images(folder / name, 12)
    train = [f"{name}/{number}.png {label}" for label, name in enumerate("ab") for number in range(8)]
    arch = [f"{name}/{number}.png {label}" for label, name in enumerate("ab") for number in range(8, 12)]
    fields = lists(train_list=train, arch_list=arch)
    data = load_search_data(search_config(fields, max_train_images=12), 8)
    for split, num in ((data.weight_split, 4), (data.arch_split, 2)):
        counts = torch.bincount(split.images.labels_N[split.indices_K])
        assert counts.tolist() == [num, num]


def test_a_share_for_architecture_steps_beside_their_list_is_refused(lists):
    fields = lists(train_list=ALL[:4], arch_list=ALL[4:])
    with pytest.raises(ValidationError, match="arch_fraction: has no effect with arch_list"):
        search_config(fields, arch_fraction=0.3)


@pytest.mark.parametrize("dataset", ["fashion_mnist_subset", "image_folder"])
def test_a_list_for_architecture_steps_needs_lists(dataset):
    fields = {"dataset": dataset} | ({"data_dir": "x"} if dataset == "image_folder" else {})
    with pytest.raises(ValidationError, match=f"arch_list: has no effect with dataset '{dataset}'"):
        search_config(fields, arch_list="b.txt")


def training_config(fields, **more):
    return TrainConfig(**{"architecture": "tf-nas-a", "batch_size": 1, "val_fraction": 0.4} | fields | more)


def test_trainings_train_on_the_images_of_both_lists_of_a_search(lists):
    fields = lists(train_list=[*ALL[:2], *ALL[3:5]], arch_list=[ALL[2]], test_list=[ALL[5]])
    data = load_training_data(training_config(fields), 8)
    assert sorted(paths_of(data.train_split) + paths_of(data.val_split)) == sorted(
        line.split()[0] for line in ALL[:5]
    )
    assert paths_of(data.test_split) == ["b/2.png"]


@pytest.mark.parametrize("field", ["train_list", "arch_list"])
def test_a_test_image_that_is_also_for_training_is_refused_with_both_lines(lists, field):
    rows = {"train_list": [ALL[0], ALL[3]], "arch_list": [ALL[1], ALL[4]]}
    fields = lists(**rows, test_list=[ALL[5], "./" + rows[field][1]])
    with pytest.raises(UserError, match=rf"^test_list: .*test_list\.txt:2: .* also in .*{field}\.txt:2"):
        load_training_data(training_config(fields), 8)


def test_worker_processes_for_images_in_memory_are_refused():
    for num_workers in (0, 2):
        with pytest.raises(ValidationError, match="num_data_workers: has no effect with dataset 'fashion"):
            SearchConfig(space="paper", target_latency_ms=1.0, num_data_workers=num_workers)


# Listing once


@pytest.mark.parametrize("dataset", ["image_folder", "image_list"])
def test_a_given_listing_is_used_and_nothing_is_listed_again(folder, lists, dataset, monkeypatch):
    of_folder = {"dataset": dataset, "data_dir": folder.parent}
    fields = of_folder if dataset == "image_folder" else lists(train_list=ALL)
    config = search_config(fields, arch_fraction=0.4)
    listing = list_images(config, ["train"])
    expected = load_search_data(config, 8)

    def refuse(*_, **__):
        raise AssertionError("listed again")

    for name in ("scandir", "stat"):
        monkeypatch.setattr(image_lists.os, name, refuse)
    monkeypatch.setattr(image_lists, "read_text", refuse)
    data = load_search_data(config, 8, listing)
    monkeypatch.undo()
    assert data.fingerprint == expected.fingerprint
    assert torch.equal(data.weight_split.indices_K, expected.weight_split.indices_K)
    for (one, _), (other, _) in zip(data.val_batches(), expected.val_batches(), strict=True):
        assert torch.equal(one, other)


def test_each_list_is_read_once(lists, monkeypatch):
    config = training_config(lists(train_list=ALL[:5], test_list=ALL[5:]))
    read, original = Counter(), image_lists.read_text

    def counting(path, what):
        read[path.name] += 1
        return original(path, what)

    monkeypatch.setattr(image_lists, "read_text", counting)
    data = load_training_data(config, 8)
    assert data.class_names == ("0", "1")
    assert read == {"train_list.txt": 1, "test_list.txt": 1}


def test_a_listing_takes_little_more_room_than_its_paths(folder):
    paths = [f"class{index % 100}/image_{index:08}.jpg" for index in range(10_000)]
    many = FileList.of(folder, [ImageFile(path, 0, 1) for path in paths], ("a", "b"))
    # 16 bytes of numbers each, and a few to tell one path from the next.
    assert len(pickle.dumps(many)) < sum(map(len, paths)) + 10_000 * 24


def test_parts_of_a_training_have_the_same_classes(folder):
    for name in "ab":
        write_images(folder.parent / "test" / name, 1)
    listing = list_images(folder_config(folder), PARTS)
    assert {part: len(files) for part, files in listing.items()} == {"train": 6, "test": 2}
    assert listing["train"].class_names == listing["test"].class_names == ("a", "b")
