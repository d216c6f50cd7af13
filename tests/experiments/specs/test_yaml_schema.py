"""The schema for editors: it is current, admits what is shipped, and marks what people get wrong."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import tune_configs

FOLDER = Path(tune_configs.__file__).parent
SHIPPED = sorted(FOLDER.glob("*.yaml"))
SCHEMA = json.loads((FOLDER / "schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)

SEARCHES = yaml.safe_load((FOLDER / "quickstart.yaml").read_text())
STUDY = yaml.safe_load((FOLDER / "study_smoke.yaml").read_text())
TRAININGS = yaml.safe_load((FOLDER / "quickstart_train.yaml").read_text())


def errors_of(content: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(content)]


def with_base(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return content | {"base": content["base"] | fields}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert errors_of(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    "content",
    [
        with_base(SEARCHES, target_latency_ms=3),
        with_base(SEARCHES, sampling="bi"),
        with_base(SEARCHES, objective_exponent=None),
        SEARCHES | {"claims": {"a": None, "b": {"num_seeds": 20}}},
        {name: part for name, part in SEARCHES.items() if name != "cells"},
        {name: part for name, part in TRAININGS.items() if name != "grid"},
        STUDY | {"resources": {"cpus_per_trial": 2}},
    ],
)
def test_what_a_launch_takes_fits(content: dict[str, Any]) -> None:
    assert errors_of(content) == []


def test_typical_mistakes_do_not_fit() -> None:
    renamed = copy.deepcopy(STUDY)
    renamed["study"]["space"]["wieght_lr"] = renamed["study"]["space"].pop("weight_lr")
    mistakes = {
        "an unknown field": with_base(SEARCHES, num_epoch=3),
        "a field outside its section": SEARCHES | {"num_epochs": 3},
        "an unknown name": with_base(SEARCHES, space="mirco"),
        "text for a number": with_base(SEARCHES, weight_lr="1e-5"),
        "a boolean for text": with_base(SEARCHES, depth=True),
        "a number out of range": with_base(SEARCHES, num_epochs=0),
        "a share that is none": with_base(SEARCHES, target_latency_ms="fast"),
        "a single value in the grid": SEARCHES | {"grid": {"seed": 3}},
        "an empty factor": SEARCHES | {"grid": {"seed": []}},
        "a value twice": SEARCHES | {"grid": {"seed": [0, 0]}},
        "an unknown factor": SEARCHES | {"grid": {"seeds": [0]}},
        "no name": {name: part for name, part in SEARCHES.items() if name != "experiment"},
        "a name that climbs": SEARCHES | {"experiment": "../x"},
        "nothing to compare": {name: SEARCHES[name] for name in ("experiment", "base")},
        "a study beside a grid": STUDY | {"grid": {"seed": [0]}},
        "a study with claims": STUDY | {"claims": {"a": None}},
        "pruning of a grid": SEARCHES | {"pruning": "asha"},
        "an unknown field of a study's space": renamed,
        "a field of searches in trainings": with_base(TRAININGS, space="micro"),
        "a field of trainings in searches": with_base(SEARCHES, lr=0.1),
        "no architectures": TRAININGS | {"architectures": []},
        "claims of trainings": TRAININGS | {"claims": {}},
        "an unknown field of a claim": SEARCHES | {"claims": {"a": {"seeds": 3}}},
        "an unknown resource": SEARCHES | {"resources": {"cpus": 2}},
    }
    assert not [mistake for mistake, content in mistakes.items() if not errors_of(content)]
