"""What a launch says of images before it starts: numbers, parts, classes, and doubts."""

import shutil
from pathlib import Path

import pytest

from experiments.cells.image_survey import ImageSurvey
from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell
from experiments.places.place import ThisMachine
from experiments.places.resources import Resources
from experiments.specs.preparation import Preparation
from nas.config import SearchConfig, TrainConfig
from tests.support.class_folders import write_class_folders

FLOWERS = ("daisy", "rose", "tulip")


def look(config: SearchConfig) -> ImageSurvey:
    return SearchCell.look_at_images(config, SearchCell.resolution(config), SearchCell.list_images(config))


def of_folder(folder: Path, **fields: object) -> SearchConfig:
    base = {"space": "micro", "target_latency_ms": 1.0, "batch_size": 4}
    return SearchConfig.model_validate(base | {"dataset": "image_folder", "data_dir": folder} | fields)


def test_images_of_a_search_are_described_by_parts_and_classes(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "flowers", FLOWERS, 25)
    # 20 of each class are left for the search, and a fifth of these for architecture steps.
    parts = "48 images for weight steps, 12 for architecture steps; 3 classes (daisy, rose, tulip)"
    apart = "; 20% of each class are set apart as test images"
    assert look(of_folder(folder)).description == f"image_folder in {folder}: {parts}{apart}"
    (tmp_path / "divided").mkdir()
    folder.rename(tmp_path / "divided" / "train")
    described = look(of_folder(tmp_path / "divided")).description
    assert described.endswith(
        ": 60 images for weight steps, 15 for architecture steps; 3 classes (daisy, rose, tulip)"
    )


def test_images_of_a_training_are_described_by_parts(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "flowers", FLOWERS, 25)
    config = TrainConfig(
        architecture="mobilenet_v2", dataset="image_folder", data_dir=folder, batch_size=4, val_fraction=0.25
    )
    survey = TrainingCell.look_at_images(config, 28, TrainingCell.list_images(config))
    assert ": 45 training images, 15 held out, 15 test images; 3 classes" in survey.description


def test_broken_images_are_not_looked_for_and_only_the_listed_ones_counted(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "flowers", FLOWERS, 25)
    (folder / "rose" / "000.png").write_text("no image")
    assert ": 60 training images at most; " in look(of_folder(folder, skip_broken_images=True)).description


@pytest.mark.parametrize(
    ("side", "space", "named"),
    [
        (28, "micro", None),
        (32, "micro", None),
        (64, "small32", None),
        (28, "paper", "micro, nano"),
        (32, "paper", "small32"),
        (224, "micro", "paper, paper_no_se, paper_no_se_no_swish"),
        (224, "paper", None),
        (1000, "paper", None),
    ],
)
def test_a_space_that_does_not_suit_the_size_of_images_is_doubted_if_another_one_does(
    tmp_path: Path, side: int, space: str, named: str | None
) -> None:
    folder = write_class_folders(tmp_path / "images", ("a", "b"), 6, side)
    doubts = look(of_folder(folder, space=space, batch_size=1, weight_steps_per_arch_step=1)).doubts
    assert [doubt.rpartition(": ")[2] for doubt in doubts] == ([] if named is None else [named])


def test_bundled_images_in_the_space_for_photos_are_doubted() -> None:
    (doubt,) = look(SearchConfig(space="paper", target_latency_ms=1.0)).doubts
    assert doubt.startswith("space: images are 28 pixels wide or high, and 'paper' enlarges them")


def test_doubts_are_reported_once_for_all_cells_of_a_file(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "images", ("a", "b"), 12, 224)
    shutil.copy(folder / "a" / "000.png", folder / "b" / "copy.png")
    lines: list[str] = []
    preparation = Preparation(tmp_path, ThisMachine(Resources(), "file"), "grid.yaml", lines.append)
    for batch_size in (1, 2):
        preparation.images(SearchCell, of_folder(folder, device="cpu", batch_size=batch_size))
    copies, space = sorted(lines)
    assert copies.startswith("grid.yaml: warning: data_dir: copies of images in other classes: 1")
    assert space.startswith("grid.yaml: warning: space: images are 224 pixels")
