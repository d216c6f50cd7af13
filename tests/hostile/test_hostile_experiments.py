"""Experiment files that are wrong: those in `experiments/`, and some that no editor would write.

Each of `experiments/` opens with why it is wrong and with what must be said about it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.command import Command
from tests.support.limits import PATIENCE_S

CORPUS = sorted((Path(__file__).parent / "experiments").glob("*.yaml"))
SOUND = b"""experiment: a
base: {space: micro, target_latency_ms: 50%, latency_table: table.json}
grid: {seed: [0]}
"""


def expected_of(path: Path) -> str:
    return path.read_text().splitlines()[1].removeprefix("# stderr: ")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_an_experiment_file_that_is_wrong_is_refused_in_one_line(path: Path, command: Command) -> None:
    Path("experiment.yaml").write_bytes(path.read_bytes())
    line = command.refuses("launch", "experiment.yaml", "--dry-run")
    assert line.startswith("tfnas: experiment.yaml")
    assert expected_of(path) in line


# Why it is wrong, its content, and what must be said about it.
BYTES = {
    "not UTF-8": (SOUND + b"# \xff\xfe", "not text in UTF-8"),
    "a NUL byte": (SOUND + b"\0", "not YAML"),
    "a control character": (SOUND + b"# \x1b[2J", "not YAML"),
    "empty": (b"", "must be a mapping"),
    "larger than anybody writes": (SOUND + b"#" * 1_000_000, "larger than"),
    "lists without end": (b"[" * 200_000, "nested too deeply"),
    "mappings without end": (b"".join(b" " * n + b"a:\n" for n in range(700)), "nested too deeply"),
    "250,000 digits, in base 16": (b"experiment: a\ngrid: {seed: [0x" + b"f" * 250_000 + b"]}\n", "64 bits"),
    "100,000 digits, in base 60": (b"experiment: a\ngrid: {seed: [" + b"1:" * 50_000 + b"1]}\n", "base 60"),
    "a field's name of 100,000 characters": (
        b"experiment: a\nbase: {? " + b"x" * 100_000 + b" : 1}\ngrid: {seed: [0]}\n",
        "unknown field",
    ),
    "30,000 seeds": (
        b"experiment: a\ngrid: {seed: [" + b",".join(b"%d" % seed for seed in range(30_000)) + b"]}\n",
        "30000 combinations",
    ),
}


@pytest.mark.parametrize("reason", BYTES)
def test_an_experiment_file_that_no_editor_writes_is_refused_in_one_line(
    reason: str, command: Command
) -> None:
    content, expected = BYTES[reason]
    Path("experiment.yaml").write_bytes(content)
    assert expected in command.refuses("launch", "experiment.yaml", "--dry-run")


@pytest.mark.timeout(30)
def test_what_is_no_file_is_refused_and_not_waited_for(command: Command) -> None:
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("gone", "dangling")
    for path, expected in {
        "pipe": "pipe or a device",
        "/dev/zero": "pipe or a device",
        "loop": "symbolic links",
        "dangling": "No such file",
        ".": "Is a directory",
        "gone.yaml": "No such file",
        "a" * 5000: "too long",
        "table.json/below": "Not a directory",
        "": "is empty",
    }.items():
        assert expected in command.refuses("launch", path, "--dry-run")


@pytest.mark.parametrize("name", ["tag_calls_a_function", "space_breaks_the_line"])
def test_a_process_of_its_own_refuses_as_well(name: str, tmp_path: Path) -> None:
    (path,) = [path for path in CORPUS if path.stem == name]
    tfnas = Path(sys.executable).with_name("tfnas")
    done = subprocess.run(
        [tfnas, "launch", str(path), "--out", str(tmp_path / "out")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert expected_of(path) in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_sound_file_that_the_others_are_made_of_is_accepted(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from experiments.specs.grid_file import load_grid

    Path("experiment.yaml").write_bytes(b"\xef\xbb\xbf" + SOUND)
    assert len(load_grid(Path("experiment.yaml")).drafts) == 1
