import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from experiments.cli import main as cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize("command", list(cli._COMMANDS))
def test_every_command_that_is_there_helps_with_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command not in cli.tfnas.list_commands(None):  # type: ignore[arg-type]
        pytest.skip("not there")
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example: tfnas" in shown or "Commands:" in shown


def paths_of(command: click.Command) -> list[click.Parameter]:
    """The arguments and options that take a path, of a command and of all below it."""
    below = command.commands.values() if isinstance(command, click.Group) else []
    own = [parameter for parameter in command.params if isinstance(parameter.type, click.Path)]
    return [*own, *(path for each in below for path in paths_of(each))]


@pytest.mark.parametrize("command", [name for name in cli._COMMANDS if name != "config"])
def test_a_path_may_begin_with_a_tilde_that_the_shell_left_as_it_is_and_is_never_empty(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = cli.tfnas.get_command(click.Context(cli.tfnas), command)
    assert found is not None
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = paths_of(found)
    assert paths
    for parameter in paths:
        assert parameter.type.convert("~/results", parameter, None) == tmp_path / "results", parameter.name
        # A variable of the shell that is not set; it would mean the current folder.
        with pytest.raises(click.BadParameter, match="it is empty; name a path"):
            parameter.type.convert("", parameter, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("experiment: a\nexperiment: b\n", "line 2: 'experiment' is there twice"),
        ("experiment: 2026-01-01\ngrid: {seed: [0]}\n", "quote it"),
        ("experiment: a\nbase: {target_latency_ms: 1, num_epochs: 1e1}\ngrid: {seed: [0]}\n", "like 100,"),
        ("experiment: a\nbase: {target_latency_ms: 1}\ngrid: {seed: 0}\n", "write [...] around the values"),
        ("experiment: a\ngrid: {sede: [1]}\n", "grid.sede: unknown field; did you mean 'seed'?"),
        ("experiment: a\nbase: {target_latency_ms: 1, weight_lr: 1e-2}\ngrid: {seed: [0]}\n", "1.0e-5"),
        ("experiment: !!python/object/apply:os.mkdir [attacked]\n", "tags"),
        ("experiment: ../../attacked\ngrid: {seed: [0]}\n", "experiment: '../../attacked'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    content: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(content)
    assert run(monkeypatch, "launch", "spec.yaml") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("tfnas: spec.yaml")
    assert expected in line
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_an_unknown_command_or_option_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "lunch") == 2
    assert run(monkeypatch, "launch", "--nonsense") == 2
    assert "No such option" in capsys.readouterr().err


def test_a_wrong_choice_ends_without_a_stray_full_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "figures", "demo", "--style", "acm") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("'springer'; see tfnas figures --help")


def test_a_disk_that_fills_while_a_command_works_is_one_line(tmp_path: Path) -> None:
    bundle = Path(__file__).parents[3] / "docs" / "replication" / "replication_width.bundle"
    command = [
        sys.executable,
        "-c",
        "from experiments.cli.main import main; main()",
        "figures",
        "--from",
        bundle,
    ]
    quota_bytes = (10_000, 10_000)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, quota_bytes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["tfnas: File too large; fix this, then rerun the command"]
