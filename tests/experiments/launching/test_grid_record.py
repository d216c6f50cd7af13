"""What a launch registers: the whole grid, and nothing that changes from machine to machine."""

import json
from dataclasses import replace
from typing import Any

from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell
from experiments.launching.grid_record import GridRecord
from nas.config import SearchConfig, TrainConfig

CLAIMS = {"e": {"measure": "val_accuracy", "sha256": "1"}}


def cell(**fields: Any) -> SearchCell:
    config = SearchConfig.model_validate(
        {"space": "paper", "target_latency_ms": 1.0, "latency_table": "/here/t.json"} | fields
    )
    return SearchCell(str(fields), fields, config, "da7a" * 16, {"tfnas.device": "cpu"}, "table")


CELLS = [cell(sampling=sampling, seed=seed) for sampling in ("single", "bi_random") for seed in (1, 0)]


def record(cells: list[SearchCell] = CELLS, claims: dict[str, Any] = CLAIMS) -> GridRecord:
    return GridRecord.of(cells, claims, "grid.yaml")


def test_base_and_fields_of_a_cell_are_its_config_without_paths_and_devices() -> None:
    content = json.loads(record().text)
    assert list(content["cells"]) == [cell.hash for cell in CELLS]
    for own in CELLS:
        found = content["cells"][own.hash]
        assert found["name"] == own.name
        assert found["images"] == "da7ada7ada7a"
        assert found["fields"] == own.factors
        config = own.config.model_dump(mode="json")
        assert (content["base"] | found["fields"]).items() <= config.items()
        assert config.keys() - content["base"].keys() - found["fields"].keys() == {
            *("data_dir", "train_list", "test_list", "arch_list", "latency_table"),
            *("download", "num_data_workers", "device", "kernels"),
        }


def test_a_grid_of_one_cell_has_only_fields_that_are_shared() -> None:
    (found,) = record(CELLS[:1]).content["cells"].values()
    assert found["fields"] == {}


def test_the_same_grid_on_another_machine_is_the_same_record() -> None:
    there = [
        replace(
            one, config=one.config.model_copy(update={"latency_table": "/there/t.json", "device": "cuda"})
        )
        for one in CELLS
    ]
    assert record(there).sha256 == record().sha256


def test_any_edit_of_grid_images_or_claims_is_another_record() -> None:
    edits = [
        record(CELLS[:3]),
        record([*CELLS, cell(sampling="single", seed=7)]),
        record([cell(sampling=one.config.sampling, seed=one.config.seed, num_epochs=16) for one in CELLS]),
        record([replace(one, data_fingerprint="07e5" * 16) for one in CELLS]),
        record(claims={}),
        record(claims={"e": CLAIMS["e"] | {"sha256": "2"}}),
    ]
    assert len({one.sha256 for one in [record(), *edits]}) == 1 + len(edits)
    assert [one.tags["tfnas.claims"] == record().tags["tfnas.claims"] for one in edits] == [True] * 4 + [
        False
    ] * 2


def test_a_training_is_recorded_with_its_network_and_search() -> None:
    config = TrainConfig(architecture="efficientnet_b0", num_epochs=5, num_warmup_epochs=2)
    training = TrainingCell("train", {}, config, "da7a" * 16, {}, architecture="run:1a2b", search_run="1a2b")
    content = GridRecord.of([training], {}, "train.yaml").content
    assert content["kind"] == "train"
    assert content["claims"] == {}
    assert content["base"]["architecture"] == "run:1a2b"
    assert content["base"]["resolution"] == 28
    assert content["cells"][training.hash]["tags"] == {"tfnas.search_run": "1a2b"}
