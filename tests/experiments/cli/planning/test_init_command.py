"""`tfnas init`: each file that it writes can be launched as it is, fits its budget, and replaces no other."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from rich.console import Console

import tune_configs
from experiments.cli import main as cli
from experiments.cli.launches.launch_command import claims_of
from experiments.cli.planning.init_command import init
from experiments.launching.dry_run import print_dry_run
from experiments.specs.grid_file import load_grid
from experiments.templates.chosen_images import DEBIAN_FOLDER
from experiments.templates.question import QUESTIONS
from nas.config import SearchConfig, TrainConfig
from nas.foundation.errors import UserError
from tests.support.class_folders import write_class_folders

SHIPPED = Path(tune_configs.__file__).parent
VALIDATOR = Draft202012Validator(json.loads((SHIPPED / "schema.json").read_text()))

SPACES = {
    "subset": "micro",
    "fashion-mnist": "micro",
    "30": "micro",
    "32": "small32",
    "48": "small32",
    "230": "paper",
}
"""The space that suits each set of images; numbers are sides of class folders' images, in pixels."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sets of images by name, as `--images` takes them."""
    root = tmp_path_factory.mktemp("images")
    sides = [name for name in SPACES if name.isdecimal()]
    made = {
        side: write_class_folders(root / side / "train", ("cat", "dog", "no"), 60, int(side))
        for side in sides
    }
    return {"subset": "subset", "fashion-mnist": "fashion-mnist"} | {
        side: str(made[side].parent) for side in sides
    }


def write(path: Path, *options: str, **flags: Any) -> Result:
    flags = {"images": "subset", "question": "targets", "device": "cpu", "hours": 1} | flags
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return CliRunner().invoke(init, [str(path), *arguments, *options])


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("images", list(SPACES))
@pytest.mark.parametrize("question", list(QUESTIONS))
def test_every_file_passes_the_dry_run_without_a_warning(
    question: str, images: str, folders: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if images == "fashion-mnist" and not DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    path = tmp_path / f"{question}.yaml"
    done = write(path, images=folders[images], question=question)
    assert done.exit_code == 0, done.exception
    grid = load_grid(path)
    assert grid.spec.base["space"] == SPACES[images]
    claims = claims_of(grid.spec, path)
    assert set(QUESTIONS[question].claims) <= set(claims)
    console = Console(width=200)
    print_dry_run(grid, tmp_path / "out", console, claims=claims, retry_failed=False)
    printed = capfd.readouterr()
    assert f"{grid.spec.num_cells} of {grid.spec.num_cells} searches to run" in printed.out
    assert "warning" not in printed.out + printed.err
    for file in tmp_path.glob("*.yaml"):
        assert not list(VALIDATOR.iter_errors(read(file)))
        assert all(
            len(line) <= 120
            for line in file.read_text().splitlines()
            if "tfnas launch" not in line and "schema" not in line
        )


def test_a_file_tells_its_question_command_claims_cost_and_what_to_expect(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write(path, question="sampling")
    header, _, _ = path.read_text().partition("experiment: ")
    for part in (
        "# yaml-language-server: $schema=",
        "# Question: ",
        f"#   tfnas launch {path} --out results/mine\n",
        "# Claims: (a)",
        "# Cost: 36 searches",
        "# Expected: ",
        "# Seen: ",
    ):
        assert part in header, part


def test_the_protocol_for_the_bundled_images_is_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", question="depth")
    shipped = read(SHIPPED / "quickstart.yaml")["base"]
    written = read(tmp_path / "mine.yaml")["base"]
    assert {name: written[name] for name in shipped} == shipped


@pytest.mark.parametrize(
    ("hours", "num_seeds", "claims"),
    [(0.01, 1, None), (0.26, 8, {"a": {"num_seeds": 8}}), (0.5, 12, None), (500, 12, None)],
)
def test_the_budget_decides_the_seeds_and_never_the_epochs(
    hours: float, num_seeds: int, claims: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.places.place.ThisMachine.num_slots", lambda self: 2)
    path = tmp_path / "mine.yaml"
    done = write(path, question="sampling", hours=hours)
    content = read(path)
    num_cells = len(QUESTIONS["sampling"].factors["sampling"])
    assert content["grid"]["seed"] == list(range(num_seeds))
    assert f"# Cost: {num_cells * num_seeds} searches" in path.read_text()
    assert content.get("claims") == claims
    assert content["base"]["num_epochs"] == 20
    assert ("more than the budget" in done.stderr) == (num_seeds == 1)


def test_trainings_follow_where_the_question_needs_test_accuracies(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write(path, question="methods")
    trainings = load_grid(tmp_path / "mine_train.yaml").as_trainings()
    trainings.check_follows("mine")
    with trainings.place(None) as place:
        trainings.check_images(load_grid(path).searched_images(), place)
    assert f"--then-train {tmp_path / 'mine_train.yaml'}" in path.read_text()


def test_every_question_gets_trainings_that_its_images_are_enough_for(tmp_path: Path) -> None:
    """The default batch of 512 is not for a few images, nor are 20 epochs."""
    folder = write_class_folders(tmp_path / "images", ("cat", "dog"), 30)
    path = tmp_path / "mine.yaml"
    write(path, images=folder, question="depth")
    trainings = load_grid(tmp_path / "mine_train.yaml").as_trainings()
    trainings.check_follows("mine")
    with trainings.place(None) as place:
        trainings.check_images(load_grid(path).searched_images(), place)
    base = read(tmp_path / "mine_train.yaml")["base"]
    assert base["batch_size"] <= 32
    # 48 training images in place of 1,200, for which it is 20 epochs.
    assert base["num_epochs"] == pytest.approx(20 * 1200 / 48, rel=0.25)
    assert f"tfnas launch {tmp_path / 'mine_train.yaml'} --out results/mine\n" in path.read_text()


def test_a_gpu_is_reserved_and_named(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", device="cuda", question="methods")
    for name, record in (("mine", SearchConfig), ("mine_train", TrainConfig)):
        content = read(tmp_path / f"{name}.yaml")
        assert content["resources"]["gpus_per_trial"] == 1
        assert set(content["base"]) <= set(record.model_fields)
    assert read(tmp_path / "mine.yaml")["base"]["device"] == "cuda"


def test_few_images_get_smaller_batches_and_the_same_number_of_steps(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "images" / "train", ("cat", "dog"), 15)
    write(tmp_path / "mine.yaml", images=folder.parent)
    base = read(tmp_path / "mine.yaml")["base"]
    num_steps = 24 // base["batch_size"]
    assert base["batch_size"] < 16
    assert (base["num_epochs"] - base["num_warmup_epochs"]) * (num_steps // 2) >= 450
    assert base["num_warmup_epochs"] * num_steps >= 8 * 20


@pytest.mark.parametrize("present", ["mine.yaml", "mine_train.yaml"])
def test_no_file_is_replaced_unless_forced(present: str, tmp_path: Path) -> None:
    (tmp_path / present).write_text("mine")
    refused = write(tmp_path / "mine.yaml", question="methods")
    assert isinstance(refused.exception, UserError)
    assert f"{tmp_path / present}: is there already" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "mine"
    assert write(tmp_path / "mine.yaml", "--force", question="methods").exit_code == 0
    assert read(tmp_path / present)["experiment"] == "mine"


def test_what_is_not_given_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(init, [], input="\nnonsense\nwidth\n\n0.5\n")
    assert done.exit_code == 0, done.output
    content = read(tmp_path / "width.yaml")
    assert content["experiment"] == "width"
    assert content["grid"]["elasticity"] == [False, True]
    assert content["base"]["dataset"] == "fashion_mnist_subset"
    assert "'nonsense' is not one of" in done.output


@pytest.mark.parametrize(
    ("arguments", "answers", "missing"),
    [
        ((), "", {"--images", "--question", "--device", "--hours"}),
        (("--images", "subset", "--hours", "1"), "", {"--question", "--device"}),
        ((), "subset\ndepth\n", {"--device", "--hours"}),
    ],
)
def test_without_a_terminal_the_flags_that_are_missing_are_named(
    arguments: tuple[str, ...],
    answers: str,
    missing: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tfnas", "init", str(tmp_path / "mine.yaml"), *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert (caught.value.code, err.count("\n")) == (2, 1)
    assert set(re.findall(r"--\w+", err)) == missing
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("mine.yaml", {"images": "/nowhere"}, "/nowhere: no such folder"),
        ("mine.txt", {}, "name it NAME.yaml"),
        (".hidden.yaml", {}, "name it NAME.yaml"),
        ("missing/mine.yaml", {}, "missing; create it, or choose another file"),
        ("mine.yaml", {"hours": 0}, "--hours"),
        ("mine.yaml", {"question": "why"}, "--question"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    name: str,
    flags: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = {"images": "subset", "question": "targets", "device": "cpu", "hours": 1} | flags
    arguments = [part for flag, value in flags.items() for part in (f"--{flag}", str(value))]
    monkeypatch.setattr(sys, "argv", ["tfnas", "init", str(tmp_path / name), *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert (caught.value.code, err.count("\n")) == (2, 1)
    assert message in err
    assert not list(tmp_path.iterdir())
