import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.main import main
from tests.hostile.command import Command
from tests.support.published import make_search_checkpoint, saved

CHECKPOINT = "searched_model_90.pth.tar"
CANARY = "attacked"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tfnas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command in a folder of its own; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capfd)


def test_the_network_of_a_search_is_written_and_can_be_described(tfnas: Run) -> None:
    content = make_search_checkpoint()
    Path(CHECKPOINT).write_bytes(saved(content))
    code, out, err = tfnas("import-search", CHECKPOINT, "--out", "network.json")
    assert (code, err) == (0, "")
    betas = [content["state_dict"][f"module.stage{stage}.betas"] for stage in range(1, 7)]
    depths = [int(values.argmax()) + 1 for values in betas]
    assert out == f"network.json: a network of 'paper' with {sum(depths)} searchable layers\n"

    _, out, _ = tfnas("describe", "network.json", "--json")
    described = json.loads(out)
    assert described["space"] == "paper"
    assert [layer["stage"] for layer in described["layers"]] == [
        stage for stage, depth in enumerate(depths, start=1) for _ in range(depth)
    ]
    for layer in described["layers"]:
        mask = content["mc_mask_dddict"][f"stage{layer['stage']}"][f"block{layer['layer']}"]
        name = f"module.stage{layer['stage']}.block{layer['layer']}.log_alphas"
        assert layer["mid_channels"] == int(mask[int(content["state_dict"][name].argmax())].sum())


def test_json_says_what_was_written(tfnas: Run) -> None:
    Path(CHECKPOINT).write_bytes(saved(make_search_checkpoint(), is_zip=False))
    code, out, _ = tfnas("import-search", CHECKPOINT, "--out", "n.json", "--space", "small32", "--json")
    assert code == 0
    summary = json.loads(out)
    written = json.loads(Path("n.json").read_text())
    assert summary["path"] == "n.json"
    assert summary["space"] == written["space"] == "small32"
    assert summary["stage_depths"] == [len(stage) for stage in written["stages"]]
    assert summary["depth"] == sum(summary["stage_depths"])


class Attack:
    """Makes a folder as soon as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (CANARY,)


class Filler:
    """Fills the memory as soon as it is unpickled, by means that torch admits."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**10,)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _zipped_twice(content: bytes) -> bytes:
    """The same ZIP file, compressed, and with a member that unpacks to a thousand times its size."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/data/99999", bytes(100_000_000))
    return buffer.getvalue()


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "empty": (lambda _: b"", "not a search checkpoint"),
    "text": (lambda _: b"epoch: 90\n", "not a search checkpoint"),
    "cut off": (lambda content: _cut(saved(content)), "not a search checkpoint"),
    "cut off, old format": (lambda content: _cut(saved(content, is_zip=False)), "not a search checkpoint"),
    "unpacks to something large": (lambda content: _zipped_twice(saved(content)), "unpacks to"),
    "a pickle that calls a function": (lambda _: pickle.dumps(Attack(), protocol=2), "mkdir"),
    "a pickle that calls a function, in text": (lambda _: pickle.dumps(Attack(), protocol=0), "mkdir"),
    "a later pickle that calls a function": (lambda _: pickle.dumps(Attack(), protocol=4), "torch did not"),
    "names a function by its older instruction": (lambda _: b"(S'attacked'\nios\nmkdir\n.", "damaged"),
    "calls a function": (lambda content: saved(content | {"epoch": Attack()}), "mkdir"),
    "calls a function, old format": (
        lambda content: saved(content | {"epoch": Attack()}, is_zip=False),
        "mkdir",
    ),
    "fills the memory": (lambda content: saved(content | {"epoch": Filler()}), "bytearray"),
    "a list": (lambda content: saved([content]), "no dictionary 'state_dict'"),
    "no state_dict": (
        lambda content: saved({"mc_mask_dddict": content["mc_mask_dddict"]}),
        "no dictionary 'state_dict'",
    ),
    "no masks, as a retrained network": (
        lambda content: saved({"state_dict": content["state_dict"]}),
        "no dictionary 'mc_mask_dddict'",
    ),
    "masks in a list": (
        lambda content: saved(content | {"mc_mask_dddict": list(content["mc_mask_dddict"].values())}),
        "no dictionary 'mc_mask_dddict'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_refused_in_one_line_and_runs_nothing(case: str, command: Command) -> None:
    make, message = REFUSED[case]
    Path(CHECKPOINT).write_bytes(make(make_search_checkpoint()))
    line = command.refuses("import-search", CHECKPOINT, "--out", "network.json")
    assert CHECKPOINT in line
    assert message in line
    assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.pth.tar", "--out", "network.json"), "nowhere.pth.tar"),
        ((CHECKPOINT, "--out", "nowhere/network.json"), "there is no folder"),
        ((CHECKPOINT, "--out", "network.json", "--space", "papier"), "did you mean 'paper'?"),
        ((CHECKPOINT, "--out", "network.json", "--space", "micro"), "'micro' has stages of 5, 5 layers"),
        ((CHECKPOINT,), "--out"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: tuple[str, ...], message: str, command: Command
) -> None:
    Path(CHECKPOINT).write_bytes(saved(make_search_checkpoint()))
    assert message in command.refuses("import-search", *arguments)


def test_the_attacks_work_where_they_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Attack(), protocol=2))
    assert Path(CANARY).exists()


@pytest.mark.parametrize("out", [CHECKPOINT, f"./{CHECKPOINT}"])
def test_the_checkpoint_is_not_overwritten(tfnas: Run, out: str) -> None:
    content = saved(make_search_checkpoint())
    Path(CHECKPOINT).write_bytes(content)
    code, _, err = tfnas("import-search", CHECKPOINT, "--out", out)
    assert code == 2
    assert "is the checkpoint itself" in err
    assert Path(CHECKPOINT).read_bytes() == content


def test_a_name_of_published_files_is_refused(tfnas: Run) -> None:
    """`tfnas describe` would read such a file as a published one."""
    Path(CHECKPOINT).write_bytes(saved(make_search_checkpoint()))
    code, _, err = tfnas("import-search", CHECKPOINT, "--out", "network.config")
    assert code == 2
    assert "network.config: names that end in .config mean published files" in err
    assert not Path("network.config").exists()
