"""`--set KEY=VALUE`: what it changes, what it refuses, and that the changed file is the one that is kept."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.specs.experiment_spec import load_spec
from experiments.specs.settings import Setting, apply_settings, naming_settings
from nas.foundation.errors import UserError

CONTENT = {
    "experiment": "small",
    "base": {"space": "micro", "target_latency_ms": "40%"},
    "cells": [{"depth": "sink"}, {"depth": "skip"}],
    "grid": {"seed": [0, 1]},
}
SECTIONS = ("experiment", "base", "cells", "grid", "resources")
HEADER = "# Question: why?\n#\n# Cost: none.\n"


def parse(*texts: str) -> list[Setting]:
    return [Setting.parse(text, "KEY=VALUE") for text in texts]


def changed(*texts: str) -> dict[str, Any]:
    return apply_settings(CONTENT, parse(*texts), SECTIONS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(HEADER + yaml.safe_dump(CONTENT, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("text", "section", "expected"),
    [
        ("base.num_epochs=10", "base", CONTENT["base"] | {"num_epochs": 10}),
        ("base.space=nano", "base", {"space": "nano", "target_latency_ms": "40%"}),
        ("grid.seed=[0, 1, 2]", "grid", {"seed": [0, 1, 2]}),
        ("grid={seed: [7], depth: [sink]}", "grid", {"seed": [7], "depth": ["sink"]}),
        ("cells.1.depth=sink", "cells", [{"depth": "sink"}, {"depth": "sink"}]),
        ("resources.cpus_per_trial=2", "resources", {"cpus_per_trial": 2}),
        ("experiment=other", "experiment", "other"),
    ],
)
def test_a_setting_changes_its_place_and_nothing_else(text: str, section: str, expected: Any) -> None:
    content = changed(text)
    assert content[section] == expected
    others = set(CONTENT) - {section}
    assert {name: content[name] for name in others} == {name: CONTENT[name] for name in others}


def test_the_content_itself_stays_as_it_is() -> None:
    changed("cells.0.depth=skip", "base.space=nano")
    assert CONTENT["cells"] == [{"depth": "sink"}, {"depth": "skip"}]
    assert CONTENT["base"]["space"] == "micro"


def test_of_two_settings_of_a_key_the_later_one_wins() -> None:
    assert changed("base.seed=1", "base.seed=2")["base"]["seed"] == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-5", 1e-5), ("1.0e-5", 1e-5), ("3", 3), ("true", True), ("off", False), ("null", None)),
        *(("bi_random", "bi_random"), ("25%", "25%"), ("[a, 1e-3]", ["a", "1e-3"]), ("'1'", "1")),
        ("{low: 0.1, high: 1, log: true}", {"low": 0.1, "high": 1, "log": True}),
    ],
)
def test_values_are_yaml_and_numbers_as_people_write_them(text: str, value: Any) -> None:
    (setting,) = parse(f"base.field={text}")
    assert (setting.value, type(setting.value)) == (value, type(value))


@pytest.mark.parametrize("value", ["table.json", "~/table.json", "[table.json]", "measure"])
def test_paths_are_relative_to_the_current_folder(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (setting,) = parse(f"grid.latency_table={value}")
    here = str(tmp_path / "table.json")
    assert setting.value == {"[table.json]": [here], "measure": "measure"}.get(value, here)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base.num_epochs", "--set base.num_epochs: write KEY=VALUE"),
        ("base.num_epochs=", "no value; write base.num_epochs=null"),
        ("base.seed=[0", "--set base.seed: '[0': not a value in YAML"),
        ("base.seed=!!python/name:os.system", "not a value in YAML"),
        ("base.seed=" + "[" * 10_000, "not a value in YAML"),
        ("num_epochs=10", "write base.num_epochs=..."),
        ("bse.num_epochs=10", "did you mean 'base'?"),
        ("nothing=10", "choose among experiment, base"),
        ("experiment.name=x", "'experiment' holds no fields"),
        ("cells.2.depth=sink", "this list has 2 entries"),
        ("cells.first.depth=sink", "this list has 2 entries"),
    ],
)
def test_a_setting_that_cannot_be_names_itself(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(text)
    assert str(caught.value).startswith("--set ")
    assert message in str(caught.value)


def test_the_text_that_a_launch_keeps_is_the_file_or_the_file_as_changed(path: Path) -> None:
    assert load_spec(path).text == path.read_text()
    spec = load_spec(path, parse("base.num_epochs=20", "grid.seed=[3]"))
    assert spec.base["num_epochs"] == 20
    content = yaml.safe_load(spec.text)
    assert content == CONTENT | {"base": CONTENT["base"] | {"num_epochs": 20}, "grid": {"seed": [3]}}
    assert spec.text.startswith(HEADER + "# Changed by --set base.num_epochs=20\n")
    again = path.with_name("again.yaml")
    again.write_text(spec.text)
    assert load_spec(again).base == spec.base


def test_errors_about_the_file_name_the_settings_and_others_do_not(path: Path) -> None:
    settings = parse("base.num_epoch=20")
    named = re.escape(f"{path} with --set base.num_epoch=20: base.num_epoch: ")
    with pytest.raises(UserError, match=named), naming_settings(settings, path):
        load_spec(path, settings)
    with pytest.raises(UserError, match=r"^--storage: x$"), naming_settings(settings, path):
        raise UserError("--storage: x")
