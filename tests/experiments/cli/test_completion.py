"""Completion on TAB: the scripts are loaded by real shells where these are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import PATIENCE_S

ROOT = Path(__file__).parents[3]
SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with the command `tfnas` on PATH, and an empty home."""
    command = tmp_path / "bin" / "tfnas"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\n"
        "import sys; sys.argv[0] = 'tfnas'\n"
        "from experiments.cli.main import main\n"
        "main()\n"
    )
    command.chmod(0o755)
    home = tmp_path / "a home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COMP_"))}
    return kept | {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
    }


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


def completed(environment: dict[str, str], words: str, num_words: int) -> list[str]:
    """What bash completes after `words`, by the installed script."""
    line = run(environment, "tfnas", "--install-completion", "bash").stdout
    script = (
        f"{line}\nCOMP_WORDS=({words}); COMP_CWORD={num_words}\n"
        '_tfnas_completion tfnas; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = run(environment, "bash", "--norc", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tfnas la", ["launch", "latency"]),
        ("tfnas launch --dry", ["--dry-run"]),
        ("tfnas latency me", ["measure"]),
        ("tfnas export --format o", ["onnx"]),
    ],
)
def test_bash_completes_commands_options_and_choices(
    words: str, expected: list[str], environment: dict[str, str]
) -> None:
    assert completed(environment, words, len(words.split()) - 1) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_is_the_one_that_the_environment_names(shell: str, environment: dict[str, str]) -> None:
    done = run(environment | {"SHELL": f"/usr/bin/{shell}"}, "tfnas", "--install-completion")
    assert done.returncode == 0, done.stderr
    written = [path for path in Path(environment["HOME"]).rglob("*") if path.is_file()]
    assert len(written) == 1
    assert f"_TFNAS_COMPLETE={shell}_complete" in written[0].read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_accept_their_script(shell: str, environment: dict[str, str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    run(environment, "tfnas", "--install-completion", shell)
    (script,) = (path for path in Path(environment["HOME"]).rglob("*") if path.is_file())
    done = run(environment, program, "-n", str(script))
    assert (done.returncode, done.stderr) == (0, "")


def test_startup_files_are_left_to_their_user(environment: dict[str, str]) -> None:
    startup = Path(environment["HOME"]) / ".bashrc"
    startup.write_text("# mine\n")
    run(environment, "tfnas", "--install-completion", "bash")
    assert startup.read_text() == "# mine\n"


@pytest.mark.parametrize("shell", ["/bin/tcsh", ""])
def test_a_shell_without_a_script_is_wrong_input(shell: str, environment: dict[str, str]) -> None:
    done = run(environment | {"SHELL": shell}, "tfnas", "--install-completion")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_completing_a_command_imports_no_command(environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['tfnas']\n"
        "from experiments.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not [name for name in sys.modules if name.endswith('_command')]\n"
    )
    asked = {"COMP_WORDS": "tfnas ", "COMP_CWORD": "1", "_TFNAS_COMPLETE": "bash_complete"}
    done = run(environment | asked, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "plain,launch" in done.stdout.splitlines()
