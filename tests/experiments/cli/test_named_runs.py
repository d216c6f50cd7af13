"""Commands that take a run: by name or by the first digits of its id, with `run:` before it or not."""

import json
import sys
from pathlib import Path

import pytest

from experiments.cli import main as cli
from experiments.cli.networks.train_command import _make_cells
from tests.support.synthetic import Store, grid


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "results" / "searches", "named")


@pytest.fixture
def runs(store: Store) -> list[str]:
    return store.add_grid({"target_latency_ms": 1.0}, grid(sampling=["single", "bi_random"]))


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_describe_shows_of_a_run_what_it_shows_of_its_file(
    store: Store, runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = store.client.get_run(runs[0]).info.run_name
    file = store.client.download_artifacts(runs[0], "architecture.json")
    code, of_file, _ = run(monkeypatch, capsys, "describe", file, "--json")
    assert code == 0
    for reference in (f"run:{runs[0][:12]}", f"run:{name}", name):
        code, of_run, _ = run(monkeypatch, capsys, "describe", reference, "--json")
        assert code == 0
        assert json.loads(of_run) == json.loads(of_file) | {"name": name}


def test_compare_takes_runs_as_the_other_commands_do(
    store: Store, runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = store.client.get_run(runs[0]).info.run_name
    code, shown, _ = run(monkeypatch, capsys, "compare", f"run:{name}", f"run:{runs[1][:12]}", "--json")
    assert code == 0
    assert json.loads(shown)["runs"] == runs


def test_train_writes_into_the_folder_of_the_search(store: Store, runs: list[str]) -> None:
    settings = ("num_epochs=1", "num_warmup_epochs=0", "batch_size=16", "max_train_images=200", "device=cpu")
    (cell,), experiment, out = _make_cells((f"run:{runs[0][:12]}",), settings, None, None)
    assert cell.search_run == runs[0]
    assert (experiment, out) == ("named", Path("results") / "searches")


@pytest.mark.parametrize("prefix", ["run:", ""])
@pytest.mark.parametrize(
    "command", [("describe",), ("train",), ("export",), ("predict", "IMAGE"), ("compare", "OTHER")]
)
def test_a_run_that_is_unknown_is_refused_in_one_line_with_near_names(
    command: tuple[str, ...],
    prefix: str,
    store: Store,
    runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = store.client.get_run(runs[0]).info.run_name
    code, _, said = run(monkeypatch, capsys, command[0], f"{prefix}{name}x", *command[1:])
    assert code == 2
    assert f"near names: {name}" in said
    assert len(said.splitlines()) == 1


def test_an_experiment_that_is_unknown_is_refused_with_near_names(
    store: Store, runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(monkeypatch, capsys, "train", "experiment:namd")
    assert code == 2
    assert "near names: named" in said
