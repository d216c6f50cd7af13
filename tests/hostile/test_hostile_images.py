"""Lists of images, folders of images and settings of a training that are wrong."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.command import Command

LIST = """experiment: a
base:
  space: micro
  target_latency_ms: 50%
  latency_table: table.json
  dataset: image_list
  data_dir: images
  train_list: train.txt
  batch_size: 2
grid: {seed: [0]}
"""

# Why it is wrong, the list, and what must be said about it.
LISTS = {
    "empty": (b"", "holds no images"),
    "not UTF-8": (b"a.png 0\n\xff.png 1\n", "not text in UTF-8"),
    "no label": (b"a.png\n", "train.txt:1: 'a.png'; must be a path and a label"),
    "a label that is text": (b"a.png cat\n", "train.txt:1"),
    "a label below zero": (b"a.png -1\n", "train.txt:1"),
    "a label of 5,000 digits": (b"a.png " + b"9" * 5000 + b"\n", "train.txt:1"),
    "a label that no other is below": (b"a.png 0\nb.png 999999999\n", "no image of class 1"),
    "one class": (b"a.png 0\nb.png 0\n", "one class only"),
    "a path that climbs": (b"../secret.png 0\na.png 1\n", "leaves data_dir"),
    "a path that climbs later": (b"a/../../secret.png 0\na.png 1\n", "leaves data_dir"),
    "an absolute path": (b"/etc/passwd 0\na.png 1\n", "leaves data_dir"),
    "a path with a NUL": (b"a\0.png 0\na.png 1\n", "no such file"),
    "a path that is a folder": (b"folder 0\na.png 1\n", "folder: no such file"),
    "a path that is a pipe": (b"pipe 0\na.png 1\n", "pipe: no such file"),
    "a path that is a loop": (b"loop 0\na.png 1\n", "loop: no such file"),
    "a path longer than the system allows": (b"a" * 5000 + b" 0\na.png 1\n", "no such file"),
    "a path that clears the screen": (b"\x1b[2J.png 0\na.png 1\n", "\\x1b[2J.png"),
    "an image too few": (b"a.png 0\nb.png 1\n", "at least 2"),
    "an image twice": (b"a.png 0\na.png 1\n", "train.txt:2: 'a.png' is also in "),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reason", LISTS)
def test_a_list_of_images_that_is_wrong_is_refused_in_one_line(reason: str, command: Command) -> None:
    content, expected = LISTS[reason]
    os.mkdir("images")
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), color).save(f"images/{name}")
    os.mkdir("images/folder")
    os.mkfifo("images/pipe")
    os.symlink("loop", "images/loop")
    Path("train.txt").write_bytes(content)
    Path("experiment.yaml").write_text(LIST)
    assert expected in command.refuses("launch", "experiment.yaml", "--dry-run")


@pytest.mark.timeout(30)
def test_a_list_that_is_no_file_is_refused_and_not_waited_for(command: Command) -> None:
    os.mkdir("images")
    os.mkfifo("train.txt")
    Path("experiment.yaml").write_text(LIST)
    assert "pipe or a device" in command.refuses("launch", "experiment.yaml", "--dry-run")
    Path("experiment.yaml").write_text(LIST.replace("train.txt", "images"))
    assert "Is a directory" in command.refuses("launch", "experiment.yaml", "--dry-run")


# Why it is wrong, the arguments of `tfnas train`, and what must be said about them.
TRAININGS = {
    "an unknown architecture": (["resnet"], "'resnet': no such file"),
    "a folder": (["."], "Is a directory"),
    "a pipe": (["pipe"], "pipe or a device"),
    "a name longer than the system allows": (["a" * 5000], "no such file"),
    "a run that is not there": (["run:0123abcd"], "no MLflow store"),
    "an experiment that climbs": (["tf-nas-a", "--experiment", "../attacked"], "--experiment ../attacked"),
    "an experiment elsewhere": (["tf-nas-a", "--experiment", "/etc/attacked"], "--experiment /etc/attacked"),
    "no value": (["tf-nas-a", "--set", "lr"], "write FIELD=VALUE"),
    "an unknown field": (["tf-nas-a", "--set", "rl=1"], "rl: unknown field"),
    "a field that breaks the line": (["tf-nas-a", "--set", "a\nb=1"], "unknown field"),
    "text for a number": (["tf-nas-a", "--set", "lr=fast"], "lr: 'fast'"),
    "NaN": (["tf-nas-a", "--set", "lr=NaN"], "lr: nan"),
    "a number too large for a float": (["tf-nas-a", "--set", "lr=1e400"], "lr: inf"),
    "a number of 100,000 digits": (["tf-nas-a", "--set", "seed=" + "1" * 100_000], "seed: '111"),
    "lists without end": (["tf-nas-a", "--set", "seed=" + "[" * 100_000], "seed: '[[["),
    "a seed below zero": (["tf-nas-a", "--set", "seed=-1"], "seed: -1"),
    "a resolution that takes all memory": (
        ["tf-nas-a", "--set", "resolution=1000000"],
        "resolution: 1000000",
    ),
    "threads without end": (["tf-nas-a", "--set", "num_threads=1000000"], "num_threads: 1000000"),
    "a device that is not there": (["tf-nas-a", "--set", "device=cuda:99"], "device: 'cuda:99'"),
    "warm-up without end": (["tf-nas-a", "--set", "num_warmup_epochs=250"], "num_warmup_epochs: 250"),
    "more images than there are": (["tf-nas-a", "--set", "batch_size=1000000"], "batch_size: 1000000"),
    "an option that is not there": (["tf-nas-a", "--nonsense"], "No such option"),
    "no architecture": ([], "ARCH..."),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reason", TRAININGS)
def test_a_training_that_cannot_be_is_refused_in_one_line(reason: str, command: Command) -> None:
    arguments, expected = TRAININGS[reason]
    os.mkfifo("pipe")
    assert expected in command.refuses("train", *arguments)
