"""The reference of fields: it is complete, its page is current, and what it says a field needs is true."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from analysis.verdicts.claim import Claim
from experiments.cli.planning.config_command import PAGE_HEADING
from experiments.specs.field_reference import SEARCHES, TRAININGS, field_entries, find_entries, reference_page
from nas.config import SearchConfig, TrainConfig
from nas.foundation.errors import UserError
from nas.foundation.field_notes import Needs, note_of

ROOT = Path(__file__).parents[3]
ENTRIES = field_entries(Claim)
BASE = {"space": "micro", "target_latency_ms": 3.0}


def facts_of(name: str, section: str = SEARCHES) -> dict[str, str]:
    (entry,) = (entry for entry in ENTRIES if (entry.section, entry.name) == (section, name))
    return entry.facts


def test_the_page_is_what_the_fields_say() -> None:
    assert (ROOT / "docs" / "config.md").read_text() == reference_page(ENTRIES, PAGE_HEADING), (
        "make reference"
    )


@pytest.mark.parametrize(("section", "record"), [(SEARCHES, SearchConfig), (TRAININGS, TrainConfig)])
def test_every_field_of_a_config_is_there(section: str, record: Any) -> None:
    assert [entry.name for entry in ENTRIES if entry.section == section] == list(record.model_fields)


def test_every_field_of_a_file_is_explained_and_has_a_type() -> None:
    assert not [f"{entry.section}.{entry.name}" for entry in ENTRIES if not (entry.text and entry.type)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("num_epochs", {"type": "integer", "range": "at least 1", "default": "90", "unit": "epochs"}),
        ("target_latency_ms", {"range": "above 0", "default": "none, must be set", "unit": "ms"}),
        ("temperature_decay", {"range": "above 0 to 1", "default": "0.96"}),
        ("num_evaluations", {"range": "20 to 1000, in steps of 10"}),
        ("weight_momentum", {"range": "0 to below 1"}),
        ("sampling", {"type": "single | bi_random | bi_gumbel | bi_min | bi_max", "default": "bi_random"}),
        ("latency_weight", {"needs": "method: tf_nas; objective: tfnas or proxyless_add"}),
        ("evaluation_sample", {"needs": "method: gp_nas"}),
        ("train_list", {"type": "path or null", "needs": "dataset: image_list"}),
    ],
)
def test_the_facts_are_those_of_the_definition(name: str, expected: dict[str, str]) -> None:
    facts = facts_of(name)
    assert {heading: facts[heading] for heading in expected} == expected


@pytest.mark.parametrize(
    ("field", "value", "without", "with_"),
    [
        ("derivation", "in_reach", {"elasticity": False}, {}),
        ("refine_widths", True, {"elasticity": False}, {}),
        ("temperature_decay", 0.9, {"final_temperature": 0.2}, {}),
        ("latency_batch_size", 8, {"latency_table": "table.json"}, {}),
        ("deterministic", True, {"device": "cpu"}, {}),
        ("latency_weight", 0.2, {"objective": "fbnet"}, {"objective": "proxyless_add"}),
        ("latency_multiplier_lr", 0.1, {}, {"objective": "lagrangian"}),
        ("num_evaluations", 50, {}, {"method": "random"}),
        ("sampling", "single", {"method": "random"}, {}),
    ],
)
def test_a_field_without_what_it_needs_is_refused_or_warned_about(
    field: str, value: Any, without: dict[str, Any], with_: dict[str, Any]
) -> None:
    assert facts_of(field)["needs"]
    assert field not in SearchConfig(**BASE, **{field: value}, **with_).ineffective_fields()
    fields = BASE | {field: value} | without
    if field in ("refine_widths", "temperature_decay"):
        with pytest.raises(ValidationError, match=f"{field}: has no effect"):
            SearchConfig(**fields)
    else:
        assert field in SearchConfig(**fields).ineffective_fields()


def test_every_need_that_a_default_search_has_is_met_or_seen() -> None:
    config = SearchConfig(**BASE)
    for name, field in SearchConfig.model_fields.items():
        needs = note_of(field, Needs)
        if needs is not None and not needs.is_required:
            assert (name in config.unused_fields()) != needs.is_met(config), name


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("num_epochs", [SEARCHES, TRAININGS]),
        ("grid.sampling", [SEARCHES]),
        ("base.lr", [TRAININGS]),
        ("study.budget.hours", ["study.budget"]),
        ("low", ["study.space.FIELD"]),
        ("num_seeds", ["claims.NAME"]),
    ],
)
def test_a_field_is_found_by_its_name_and_by_its_section(name: str, sections: list[str]) -> None:
    assert [entry.section for entry in find_entries(name, ENTRIES)] == sections


@pytest.mark.parametrize("name", ["num_epoch", "base.num_epoch", "study.num_epochs"])
def test_an_unknown_field_gets_a_near_name(name: str) -> None:
    with pytest.raises(UserError, match="did you mean 'num_epochs'"):
        find_entries(name, ENTRIES)
