from typing import Any, get_args

import pytest

from analysis.measures import MEASURES
from analysis.verdicts import CLAIMS, resolve_claims
from analysis.verdicts.claim import parse_record
from nas.config import SearchConfig
from nas.foundation.errors import UserError

OWN: dict[str, Any] = {
    "statement": "Sink-connecting narrows networks.",
    "measure": "val_accuracy",
    "baseline": {"depth": "skip"},
    "treated": {"depth": "sink"},
    "direction": "greater",
    "smallest_effect": 0.01,
}


def test_the_claims_of_the_paper_are_records_that_name_measures_and_both_sides():
    assert list(CLAIMS) == ["a", "b", "d", "d2", "e", "f", "g"]
    for claim in CLAIMS.values():
        assert claim.num_seeds == 12
        assert {claim.measure, claim.second_measure, *claim.beside} <= {*MEASURES, None}
        assert set(claim.baseline) == set(claim.treated)
    assert CLAIMS["a"].within == {"depth": "sink"}


def test_the_claims_of_the_paper_are_those_that_were_registered_before():
    assert {name: CLAIMS[name].sha256[:8] for name in ("a", "b", "d", "e")} == {
        "a": "86402dc1",
        "b": "8b240ef9",
        "d": "309aa234",
        "e": "5782b141",
    }


def test_any_edit_of_a_claim_changes_its_hash_and_reading_its_record_does_not():
    claim = CLAIMS["a"]
    assert parse_record(claim.record(), "here") == claim
    assert parse_record(claim.record(), "here").sha256 == claim.record()["sha256"]
    for change in ({"smallest_effect": 0.11}, {"num_seeds": 13}, {"within": {}}, {"statement": "x"}):
        assert claim.model_copy(update=change).sha256 != claim.sha256
    assert claim.model_copy(update={"note": "", "beside": []}).sha256 == claim.sha256


def test_a_file_adds_claims_changes_fields_of_known_ones_and_drops_them():
    claims = resolve_claims({"mine": OWN, "a": {"num_seeds": 20}, "e": None}, "x.yaml")
    assert list(claims) == ["a", "b", "d", "d2", "f", "g", "mine"]
    assert claims["a"] == CLAIMS["a"].model_copy(update={"num_seeds": 20})
    assert claims["b"] == CLAIMS["b"]
    assert claims["mine"].num_seeds == 12


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"measure": "acuracy"}, "measure"),
        ({"second_measure": "nothing"}, "second_measure"),
        ({"beside": ["nothing"]}, "beside"),
        ({"direction": "smaller"}, "direction"),
        ({"smallest_effect": 0.0}, "smallest_effect"),
        ({"smallest_effect": float("nan")}, "smallest_effect"),
        ({"num_seeds": 6}, "num_seeds"),
        ({"num_seeds": "12"}, "num_seeds"),
        ({"treated": {"sampling": "single"}}, "baseline and treated"),
        ({"treated": {"depth": "skip"}}, "baseline and treated"),
        ({"within": {"depth": "sink"}}, "within"),
        ({"match": "time"}, "match"),
        ({"effect": 1}, "effect"),
        ({"statement": ""}, "statement"),
    ],
)
def test_an_impossible_claim_is_refused_in_a_line_that_names_the_field(change: dict[str, Any], named: str):
    with pytest.raises(UserError) as error:
        resolve_claims({"mine": OWN | change}, "x.yaml")
    assert str(error.value).startswith("x.yaml: claims.mine")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_claim_that_lacks_a_field_is_refused():
    with pytest.raises(UserError, match="measure"):
        resolve_claims({"mine": {name: value for name, value in OWN.items() if name != "measure"}}, "x.yaml")


def test_dropping_a_claim_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="no such claim"):
        resolve_claims({"z": None}, "x.yaml")


def test_a_negative_smallest_effect_is_a_margin_that_the_test_has_to_exclude():
    assert CLAIMS["e"].null == -0.005
    assert CLAIMS["a"].null == 0


@pytest.mark.parametrize("name", ["d", "d2"])
def test_the_note_of_a_claim_about_scaling_says_what_it_means_under_each_derivation(name: str) -> None:
    derivations = get_args(SearchConfig.model_fields["derivation"].annotation)
    assert len(derivations) == 2
    assert all(f"`{one}`" in CLAIMS[name].note or f": {one}`" in CLAIMS[name].note for one in derivations)
