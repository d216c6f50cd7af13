"""`tfnas config`: what it prints, and what it answers to a field that is not there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tune_configs
from experiments.cli import main as cli


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tfnas", "config", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_a_field_is_shown_with_its_facts(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "final_temperature")
    assert code == 0
    for fact in ("number or null", "above 0", "beyond the paper", "method: tf_nas"):
        assert fact in out


def test_all_fields_are_listed_by_section(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys)
    assert code == 0
    for name in ("experiment", "arch_lr", "label_smoothing", "sampler_seed", "node_resource", "statement"):
        assert name in out


def test_the_schema_is_the_shipped_one():
    # In a process of its own: other tests register spaces of theirs, whose names would be in it.
    command = [sys.executable, "-c", "from experiments.cli.main import main; main()", "config", "--schema"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout) == json.loads(
        (Path(tune_configs.__file__).parent / "schema.json").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["num_epoch"], "did you mean 'num_epochs'?"),
        (["no\nsuch"], "`tfnas config` lists all fields"),
        (["num_epochs", "--schema"], "give one of them"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
