"""Grids of trainings: the real command searches and trains in one, and continues where it stopped."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

import tune_configs
from analysis.bundles.archive import to_json, unpack
from analysis.bundles.bundle_store import BundleStore
from analysis.bundles.bundle_writer import write_bundle
from analysis.bundles.verification import verify
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.store import MlflowStore
from experiments.cells.cell import Cell
from experiments.specs.experiment_spec import TrainingSpec, check_spec
from experiments.specs.grid_file import load_grid
from experiments.specs.training_grid import TrainingGrid, with_own_names
from experiments.tracking.named_network import NamedNetwork
from nas.config import SearchConfig, TrainConfig
from nas.data.image_source import fingerprint_data
from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import NANO, get_space
from nas.training.trained_network import load_trained_network
from nas.training.training import training_identity
from tests.experiments.launching.test_launch import BASE, tfnas_here
from tests.support.bundles import seal
from tests.support.class_folders import write_class_folders
from tests.support.command import tfnas
from tests.support.tiny import full_depth_architecture, make_dense_table

TRAIN_BASE = {
    "max_train_images": 60,
    "batch_size": 8,
    "augmentation": "none",
    "num_epochs": 2,
    "num_warmup_epochs": 0,
    "grad_clip_norm": 1.0e30,
}
LEARNS, DIVERGES = 0.05, 1.0e30
FLOWERS = ("daisy", "rose", "tulip")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two YAML files, the lookup table and the images of the one and an architecture file of the other.

    Only the file of the search names images: class folders without any for tests, and with a broken file.
    """
    folder = tmp_path_factory.mktemp("training_grid")
    make_dense_table(get_space("micro")).save(folder / "table.json")
    full_depth_architecture(get_space("micro")).save(folder / "small.json")
    write_class_folders(folder / "flowers", FLOWERS, 30)
    (folder / "flowers" / "rose" / "000-broken.png").write_text("no image")
    images = {"dataset": "image_folder", "data_dir": "flowers", "skip_broken_images": True}
    search = {"experiment": "tested", "base": BASE | images, "grid": {"seed": [0]}}
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    write(folder, "train.yaml", lr=[LEARNS, DIVERGES])
    return folder


def write(folder: Path, name: str, **grid: list[Any]) -> Path:
    content = {
        "experiment": "tested",
        "architectures": ["small.json"],
        "base": TRAIN_BASE,
        "grid": grid,
        "resources": {"max_concurrent_trials": 1},
    }
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


@pytest.fixture(scope="module")
def launched(folder: Path) -> subprocess.CompletedProcess[str]:
    """One command that searches once and trains two networks twice, of which one rate diverges."""
    return tfnas(
        *("launch", str(folder / "search.yaml"), "--then-train", str(folder / "train.yaml")),
        *("--out", str(folder / "out")),
    )


def runs_of(out: Path, kind: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tested")
    return list(client.search_runs([experiment.experiment_id], f"tags.`tfnas.kind` = '{kind}'"))


Launched = subprocess.CompletedProcess[str]


def test_what_a_search_found_is_trained_beside_the_files_under_one_budget(
    folder: Path, launched: Launched
) -> None:
    assert launched.returncode == 1, launched.stderr
    assert "1 of 1 searches are finished" in launched.stdout
    assert "2 of 4 trainings are finished" in launched.stdout
    out = folder / "out"
    (search,) = runs_of(out, "search")
    trainings = runs_of(out, "train")
    found = {(run.data.params["architecture"], run.data.params["lr"]): run.info.status for run in trainings}
    references = (f"run:{search.info.run_id}", str(folder / "small.json"))
    assert found == {
        **{(reference, "0.05"): "FINISHED" for reference in references},
        **{(reference, "1e+30"): "FAILED" for reference in references},
    }
    for run in trainings:
        is_searched = run.data.params["architecture"] == references[0]
        assert run.data.tags.get("tfnas.search_run") == (search.info.run_id if is_searched else None)
        budget = {name: run.data.params[name] for name in TRAIN_BASE}
        assert budget == {name: str(value) for name, value in TRAIN_BASE.items()}


def test_a_bundle_has_the_trainings_and_whether_their_networks_are_those_of_the_search(
    folder: Path, launched: Launched, tmp_path: Path
) -> None:
    mlflow_store = MlflowStore(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    path = tmp_path / "tested.bundle"
    path.write_bytes(write_bundle("tested", mlflow_store)[0])
    store = BundleStore.open(path)
    found, expected = (read_experiment("tested", each) for each in (store, mlflow_store))
    for ours, theirs in (
        (found.training, expected.training),
        (found.failed_training, expected.failed_training),
    ):
        assert [(run.name, run.outcome, run.config, run.metrics) for run in ours] == [
            (run.name, run.outcome, run.config, run.metrics) for run in theirs
        ]
    assert len(found.training) == len(found.failed_training) == 2
    assert not [str(one) for check in verify(store) for one in check.disagreements]
    files = unpack(path)
    records = json.loads(files["runs.json"])
    one, other = (run for run in records["runs"] if run["run_id"] in {run.run_id for run in found.training})
    one["files"], other["files"] = other["files"], one["files"]
    path.write_bytes(seal(files | {"runs.json": to_json(records)}))
    disagreeing = [check.title for check in verify(BundleStore.open(path)) if check.disagreements]
    assert disagreeing == ["networks that were trained"]


def test_all_networks_are_trained_on_the_images_of_the_search_and_tested_on_what_it_never_saw(
    folder: Path, launched: Launched
) -> None:
    for run in runs_of(folder / "out", "train"):
        expected = {
            "dataset": "image_folder",
            "data_dir": str(folder / "flowers"),
            "skip_broken_images": "True",
            "resolution": "28",
        }
        assert {name: run.data.params[name] for name in expected} == expected
        assert "tfnas.searched_on" not in run.data.tags
        if run.info.status == "FINISHED":
            assert run.data.metrics["num_test_images"] == len(FLOWERS) * 30 / 5
            artifacts = Path(
                MlflowClient(f"sqlite:///{folder}/out/mlflow.db").download_artifacts(
                    run.info.run_id, "best.pt"
                )
            )
            assert load_trained_network(artifacts)[0].class_names == FLOWERS
    assert "Searched on other images" not in launched.stdout


def test_the_number_of_broken_images_left_out_is_said_of_each_search_and_training(
    folder: Path, launched: Launched
) -> None:
    left_out = (
        f"warning: skip_broken_images: 1 of 60 image files are left out, for instance {folder}/flowers/rose/"
    )
    names = {run.info.run_name for kind in ("search", "train") for run in runs_of(folder / "out", kind)}
    assert {line.partition(": ")[0] for line in launched.stdout.splitlines() if left_out in line} == names


def test_a_finished_training_has_epochs_networks_and_its_launch(folder: Path, launched: Launched) -> None:
    out = folder / "out"
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    launches = {run.info.run_id for run in runs_of(out, "launch")}
    assert {run.data.tags["tfnas.registers"] for run in runs_of(out, "launch")} == {"search", "train"}
    for run in (run for run in runs_of(out, "train") if run.info.status == "FINISHED"):
        assert run.data.tags["mlflow.parentRunId"] in launches
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [metric.step for metric in history] == [1, 2]
        artifacts = Path(client.download_artifacts(run.info.run_id, ""))
        names = {path.name for path in artifacts.iterdir()}
        assert {"best.pt", "last.pt", "architecture.json", "config.yaml"} <= names
        record, _ = load_trained_network(artifacts / "best.pt")
        assert record.metrics["test_accuracy"] == run.data.metrics["test_accuracy"]


def test_size_cost_and_latency_are_measured_in_one_session_after_the_trials(
    folder: Path, launched: Launched
) -> None:
    finished = [run for run in runs_of(folder / "out", "train") if run.info.status == "FINISHED"]
    assert len({run.data.tags["tfnas.latency_session"] for run in finished}) == 1
    client = MlflowClient(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    for run in finished:
        path = Path(client.download_artifacts(run.info.run_id, "best.pt"))
        _, network = load_trained_network(path)
        metrics = run.data.metrics
        assert metrics["num_parameters"] == sum(weight.numel() for weight in network.parameters())
        assert metrics["size_bytes"] == path.stat().st_size
        assert metrics["num_macs"] > 0
        assert metrics["measured_latency_ms"] > 0
        assert metrics["latency_ratio_to_efficientnet_b0"] > 0
        assert "EfficientNet-B0" in run.data.tags["tfnas.latency_conditions"]
    measuring = launched.stdout.index("Measuring the latency of 3 networks in turn")
    assert measuring > launched.stdout.rindex(": epoch 2/2")


def test_the_table_is_printed_and_written(folder: Path, launched: Launched) -> None:
    assert "Networks trained from scratch" in launched.stdout
    text = (folder / "out" / "tables" / "trained.md").read_text()
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert names[1:] == ["tested", "small"]


def test_launching_again_starts_nothing_though_folders_are_gone(
    folder: Path, launched: Launched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    for name in ("ray", "cells"):
        shutil.rmtree(out / name, ignore_errors=True)
    before = {run.info.run_id: run.info.end_time for run in runs_of(out, "train")}
    arguments = ("launch", str(folder / "search.yaml"), "--then-train", str(folder / "train.yaml"))
    assert tfnas_here(monkeypatch, *arguments, "--out", str(out)) == 1
    said = capsys.readouterr().out
    assert "4 trainings: 2 finished, 2 failed; 0 to run" in said
    assert {run.info.run_id: run.info.end_time for run in runs_of(out, "train")} == before


def test_a_grid_of_an_experiments_searches_knows_what_is_done_and_what_is_missing(
    folder: Path, launched: Launched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder, "more.yaml", seed=[0, 1], lr=[LEARNS])
    content = yaml.safe_load(path.read_text())
    content["architectures"] = ["experiment:tested", "experiment:tested", "small.json", "mnasnet1_0"]
    path.write_text(yaml.safe_dump(content))
    arguments = ("launch", str(path), "--out", str(folder / "out"))
    shutil.rmtree(folder / "out" / "fetched")
    before = set(folder.rglob("*"))
    assert tfnas_here(monkeypatch, *arguments, "--status") == 0
    said = capsys.readouterr().out
    assert said.count("finished") == 2
    assert said.count("missing") == 4
    assert tfnas_here(monkeypatch, *arguments, "--dry-run") == 0
    assert "4 of 6 trainings to run" in capsys.readouterr().out
    assert set(folder.rglob("*")) == before, "neither writes anything"
    assert tfnas_here(monkeypatch, *arguments, "--dry-run", "--measure") == 0
    assert "estimated by timing a few steps of each kind" in capsys.readouterr().out


def cells_of(folder: Path, content: dict[str, Any]) -> list[Cell]:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    grid = load_grid(path)
    with grid.place(None) as place:
        return grid.cells(folder / "out", place, print)


SMALL = {"experiment": "small", "architectures": ["tf-nas-a"], "base": TRAIN_BASE}


def test_every_network_is_trained_for_every_combination(folder: Path) -> None:
    grid = {"seed": [0, 1, 2], "label_smoothing": [0.0, 0.1]}
    cells = cells_of(folder, SMALL | {"architectures": ["small.json", "efficientnet_b0"], "grid": grid})
    assert len({cell.hash for cell in cells}) == len(cells) == 12
    assert cells[0].name == "t0-small-label_smoothing=0.0"
    assert list(cells[0].factors) == ["architecture", "seed", "label_smoothing"]
    assert {cell.factors["architecture"] for cell in cells} == {"small", "efficientnet_b0"}


def test_a_plan_of_a_small_space_writes_elsewhere_and_has_the_same_trainings(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"architectures": ["space:nano"]}))
    grid, out = load_grid(path), tmp_path / "out"
    with grid.place(None) as place:
        plan = grid.plan(out, tmp_path / "scratch", place, print)
        hashes = [cell.hash for cell in plan.cells]
        assert not out.exists()
        assert hashes == [cell.hash for cell in grid.cells(out, place, print)]
    assert (plan.measured, plan.tables) == (plan.cells, ())


def test_networks_of_one_name_get_names_of_their_own() -> None:
    networks = [NamedNetwork(f"{place}/small.json", "", "small") for place in "ab"]
    other = NamedNetwork("efficientnet_b0", "", "efficientnet_b0")
    names = [network.name for network in with_own_names([*networks, other])]
    assert names == ["small.1", "small.2", "efficientnet_b0"]


def test_without_a_grid_each_network_is_trained_once(folder: Path) -> None:
    (cell,) = cells_of(folder, SMALL)
    assert cell.name == "t0-tf-nas-a"


def test_a_small_space_stands_for_all_of_its_networks(folder: Path) -> None:
    cells = cells_of(folder, SMALL | {"architectures": ["space:nano"], "grid": {"seed": [0, 1]}})
    assert len({cell.hash for cell in cells}) == 2 * 400
    networks = {Path(cell.config.architecture) for cell in cells if isinstance(cell.config, TrainConfig)}
    loaded = {path.stem: Architecture.load(path) for path in networks}
    codes = {f"nano-{operator_code(each, NANO)}": each for each in all_architectures(NANO)}
    assert loaded == codes
    # A file of before the space was changed, and one that was cut off.
    one, other, *_ = sorted(networks)
    one.write_text(other.read_text())
    other.write_text(other.read_text()[:20])
    cells_of(folder, SMALL | {"architectures": ["space:nano"]})
    assert {path.stem: Architecture.load(path) for path in networks} == codes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SMALL | {"architectures": []}, "architectures"),
        (SMALL | {"architectures": ["space:huge"]}, "no space 'huge'"),
        (SMALL | {"architectures": ["space:micro"]}, "micro' has"),
        (SMALL | {"architectures": "tf-nas-a"}, "architectures"),
        (SMALL | {"architectures": ["resnet50"]}, "resnet50': no such file"),
        (SMALL | {"architectures": ["."]}, "Is a directory"),
        (SMALL | {"base": TRAIN_BASE | {"num_warmup_epochs": 2}}, "num_warmup_epochs: 2"),
        (SMALL | {"architectures": ["tf-nas-a", "tf-nas-a"]}, "are the same training; remove one"),
        (SMALL | {"architectures": ["run:0123"]}, "architectures: run:0123: no"),
        (SMALL | {"architectures": ["experiment:none"]}, "architectures: experiment:none: no"),
        (SMALL | {"base": {"architecture": "tf-nas-a"}}, "move it to `architectures`"),
        (SMALL | {"base": {"space": "micro"}}, "base.space: unknown field"),
        (SMALL | {"claims": {"mine": {}}}, "claims: mine: does not go with `architectures`"),
        (SMALL | {"share_warmup": True}, "share_warmup: has no effect on trainings; remove it"),
        (SMALL | {"base": {"lr": "1e-1"}}, "YAML reads it as text: write it like"),
        (SMALL | {"grid": {"lr": [0.1, -0.1]}}, "grid.lr: -0.1"),
        (SMALL | {"base": {"num_threads": 4}}, "a trial has 1 cores"),
        (SMALL | {"base": {"max_train_images": 60}}, "batch_size: 512"),
        (SMALL | {"base": {"dataset": "cifar10", "data_dir": "nowhere"}}, "no such folder"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(
    tmp_path: Path, content: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        cells_of(tmp_path, content)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'spec.yaml'}: ")
    assert "\n" not in str(caught.value)


# The images of searches


def log_search(folder: Path, images: Path | None, **fields: Any) -> str:
    """A finished search as a launch leaves it in MLflow; returns its id."""
    config = SearchConfig.model_validate(
        {"space": "micro", "target_latency_ms": 5.0}
        | ({"dataset": "image_folder", "data_dir": images} if images else {})
        | fields
    )
    (folder / "out").mkdir(exist_ok=True)
    client = MlflowClient(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("found")
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment("found", artifact_location=(folder / "artifacts").as_uri())
    )
    tags = {"tfnas.kind": "search", "tfnas.data_fingerprint": fingerprint_data(config)}
    run_id = str(
        client.create_run(experiment_id, tags=tags, run_name=f"{config.space} of {images}").info.run_id
    )
    for name, value in config.model_dump(mode="json").items():
        client.log_param(run_id, name, value)
    full_depth_architecture(get_space("micro")).save(folder / "architecture.json")
    client.log_artifact(run_id, str(folder / "architecture.json"))
    client.set_terminated(run_id)
    return run_id


def training(folder: Path, *architectures: str, **base: Any) -> list[Cell]:
    content = {"experiment": "found", "architectures": list(architectures), "base": TRAIN_BASE | base}
    return cells_of(folder, content)


def image_fields(cell: Cell) -> tuple[Any, ...]:
    fields = cell.fields
    return fields["dataset"], fields["data_dir"], fields["resolution"]


def test_each_network_of_an_experiment_is_trained_on_the_images_of_its_own_search(tmp_path: Path) -> None:
    one, other = (write_class_folders(tmp_path / name, FLOWERS, 20) for name in ("one", "other"))
    log_search(tmp_path, one)
    log_search(tmp_path, other, skip_broken_images=True)
    cells = training(tmp_path, "experiment:found")
    assert [image_fields(cell) for cell in cells] == [
        ("image_folder", str(one), 28),
        ("image_folder", str(other), 28),
    ]
    assert [cell.fields["skip_broken_images"] for cell in cells] == [False, True]
    with pytest.raises(UserError, match="dataset: missing for 'mobilenet_v2': the searches beside it used"):
        training(tmp_path, "experiment:found", "mobilenet_v2")


def test_a_network_beside_searches_of_one_set_of_images_is_trained_on_these_at_their_size(
    tmp_path: Path,
) -> None:
    images = write_class_folders(tmp_path / "images", FLOWERS, 20)
    run_ids = [log_search(tmp_path, images, seed=seed) for seed in (0, 1)]
    names = (*(f"run:{run_id}" for run_id in run_ids), "mobilenet_v2")
    cells = training(tmp_path, *names)
    assert {image_fields(cell) for cell in cells} == {("image_folder", str(images), 28)}
    assert training(tmp_path, *names, resolution=32)[-1].fields["resolution"] == 32
    log_search(tmp_path, images, space="small32")
    with pytest.raises(UserError, match=r"resolution: missing for 'mobilenet_v2': .* of 28, 32 pixels"):
        training(tmp_path, "experiment:found", "mobilenet_v2")


def test_moved_images_are_the_same_and_other_or_changed_ones_are_said(tmp_path: Path) -> None:
    images = write_class_folders(tmp_path / "images", FLOWERS, 20)
    network = f"run:{log_search(tmp_path, images, max_train_images=24)}"

    def searched_on(**base: Any) -> str | None:
        (cell,) = training(tmp_path, network, **base)
        return cell.tags.get("tfnas.searched_on")

    assert searched_on() is None
    shutil.copytree(images, tmp_path / "moved")
    assert searched_on(data_dir="moved") is None
    write_class_folders(tmp_path / "others", FLOWERS, 20)
    assert searched_on(data_dir="others") == "image_folder 'images'"
    assert searched_on(dataset="fashion_mnist_subset") == "image_folder 'images'"
    write_class_folders(images / "rose" / "new", ("more",), 30)
    assert searched_on() == "image_folder 'images', as it was then"


def test_another_data_set_takes_over_nothing(tmp_path: Path) -> None:
    images = write_class_folders(tmp_path / "images", FLOWERS, 20)
    network = f"run:{log_search(tmp_path, images, skip_broken_images=True)}"
    cells = training(tmp_path, network, "mobilenet_v2", dataset="fashion_mnist_subset")
    assert {image_fields(cell) for cell in cells} == {("fashion_mnist_subset", None, 28)}
    assert not any(cell.fields["skip_broken_images"] for cell in cells)


def test_trainings_after_a_search_of_the_bundled_images_are_known_as_before(tmp_path: Path) -> None:
    network = f"run:{log_search(tmp_path, None)}"
    inherited = training(tmp_path, network, "mobilenet_v2")
    said = training(tmp_path, network, "mobilenet_v2", dataset="fashion_mnist_subset")
    for cell, other in zip(inherited, said, strict=True):
        assert cell.hash == other.hash
        assert cell.identity == training_identity(cell.config, cell.data_fingerprint) | {
            "search run": cell.search_run
        }
        assert cell.fields["max_train_images"] == TRAIN_BASE["max_train_images"]


def test_lists_of_a_search_are_taken_over_and_its_test_images_asked_for(tmp_path: Path) -> None:
    images = write_class_folders(tmp_path / "images", FLOWERS, 20)
    rows = [
        f"{path.relative_to(images)} {FLOWERS.index(path.parent.name)}"
        for path in sorted(images.rglob("*.png"))
    ]
    for name, part in (("train", rows[0::3]), ("arch", rows[1::3]), ("test", rows[2::3])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    lists = {"train_list": tmp_path / "train.txt", "arch_list": tmp_path / "arch.txt"}
    network = f"run:{log_search(tmp_path, images, dataset='image_list', **lists)}"
    with pytest.raises(UserError, match="test_list: missing"):
        training(tmp_path, network)
    (cell,) = training(tmp_path, network, test_list="test.txt")
    assert {name: cell.fields[name] for name in lists} == {name: str(path) for name, path in lists.items()}
    assert "tfnas.searched_on" not in cell.tags
    assert "37 training images, 3 held out, 20 test images" in cell.images


def test_a_run_that_is_no_search_is_refused(tmp_path: Path) -> None:
    run_id = log_search(tmp_path, None)
    client = MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    other = client.create_run(client.get_run(run_id).info.experiment_id, run_name="other").info.run_id
    client.log_artifact(other, str(tmp_path / "architecture.json"))
    with pytest.raises(UserError, match=f"run:{other}: run 'other' is no search of `tfnas launch`"):
        training(tmp_path, f"run:{other}")


def test_images_that_a_training_could_not_use_are_refused_before_the_search(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(tmp_path / "images" / "train", FLOWERS, 20)
    images = {"dataset": "image_folder", "data_dir": "images", "latency_table": str(folder / "table.json")}
    search = {"experiment": "tested", "base": BASE | images, "grid": {"seed": [0]}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(search))
    arguments = ("launch", str(tmp_path / "search.yaml"), "--then-train", str(folder / "train.yaml"))
    assert tfnas_here(monkeypatch, *arguments, "--out", str(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"tfnas: {folder / 'train.yaml'}: data_dir: {tmp_path / 'images'}: has train, but no"
    )
    assert not (tmp_path / "out").exists()


def test_the_shipped_grid_trains_the_demos_networks_and_efficientnet_b0() -> None:
    folder = Path(tune_configs.__file__).parent
    grid = load_grid(folder / "quickstart_train.yaml").as_trainings()
    assert load_grid(folder / "quickstart.yaml").spec.experiment == "demo"
    assert grid.references == ("experiment:demo", "efficientnet_b0")


def test_searches_come_first_and_once() -> None:
    path = Path("any.yaml")
    spec = check_spec(SMALL | {"architectures": ["run:b", "tf-nas-a"]}, path)
    assert isinstance(spec, TrainingSpec)
    assert TrainingGrid.of(spec, path).with_searches(["a", "b"]).references == ("run:a", "run:b", "tf-nas-a")


@pytest.mark.parametrize(
    ("training", "options", "expected"),
    [
        ({"experiment": "other"}, (), "must be 'tested'"),
        ({"architectures": None}, (), "take a file of trainings"),
        ({}, ("--dry-run",), "does not go with --dry-run or --status"),
    ],
)
def test_what_cannot_follow_a_search_is_refused_before_it(
    folder: Path,
    tmp_path: Path,
    training: dict[str, Any],
    options: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = {"experiment": "tested", "architectures": ["tf-nas-a"], "base": TRAIN_BASE} | training
    if content["architectures"] is None:
        content = {"experiment": "tested", "base": BASE, "grid": {"seed": [0]}}
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(content))
    arguments = ("launch", str(folder / "search.yaml"), "--then-train", str(path), *options)
    assert tfnas_here(monkeypatch, *arguments, "--out", str(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not (tmp_path / "out").exists()
