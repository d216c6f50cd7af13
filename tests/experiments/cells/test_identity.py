"""Which fields are part of the identity of a search, of a training and of a warm-up."""

import math
from typing import Any

import pytest

from nas.config import SearchConfig, TrainConfig
from nas.search.search_identity import (
    FIELDS_AFTER_WARMUP,
    FIELDS_WITHOUT_EFFECT,
    search_identity,
    warmup_hash,
)
from nas.training.training import training_identity

# Two values of each field, and what else it takes for them to be possible and to have an effect.
SEARCH_CHANGES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dataset": ("cifar10", "cifar100", {"data_dir": "a"}),
    "skip_broken_images": (False, True, {"dataset": "image_folder", "data_dir": "a"}),
    "max_train_images": (None, 100, {}),
    "augmentation": ("paper", "none", {}),
    "space": ("paper", "micro", {}),
    "target_latency_ms": (1.0, math.nextafter(1.0, 2.0), {}),
    "sampling": ("bi_random", "bi_gumbel", {}),
    "depth": ("sink", "skip", {}),
    "elasticity": (True, False, {}),
    "derivation": ("argmax", "in_reach", {}),
    "num_evaluations": (100, 20, {"method": "random"}),
    "evaluation_sample": ("mutual_information", "random", {"method": "gp_nas"}),
    "refine_widths": (False, True, {}),
    "objective": ("tfnas", "proxyless_add", {}),
    "latency_weight": (0.1, 0.2, {"objective": "proxyless_add"}),
    "objective_scale": (0.1, 0.2, {"objective": "fbnet"}),
    "objective_exponent": (0.1, 0.2, {"objective": "proxyless_mul"}),
    "latency_multiplier_lr": (0.1, 0.2, {"objective": "lagrangian"}),
    "seed": (0, 1, {}),
    "num_epochs": (20, 21, {}),
    "num_warmup_epochs": (0, 1, {}),
    "batch_size": (1, 2, {}),
    "arch_fraction": (0.1, 0.2, {}),
    "weight_steps_per_arch_step": (1, 2, {}),
    "weight_lr": (0.1, 0.2, {}),
    "weight_momentum": (0.1, 0.2, {}),
    "weight_decay": (0.0, 5e-324, {}),
    "arch_lr": (0.1, 0.2, {}),
    "arch_lr_schedule": ("constant", "cosine", {}),
    "arch_beta1": (0.1, 0.2, {}),
    "arch_beta2": (0.1, 0.2, {}),
    "arch_weight_decay": (0.1, 0.2, {}),
    "grad_clip_norm": (0.1, 0.2, {}),
    "initial_temperature": (0.1, 0.2, {}),
    "final_temperature": (0.1, 0.2, {}),
    "temperature_decay": (0.1, 0.2, {}),
    "reset_optimizers_each_epoch": (False, True, {}),
    "num_threads": (1, 2, {}),
    "mixed_precision": (False, True, {}),
    "deterministic": (False, True, {}),
}
TRAIN_CHANGES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    name: SEARCH_CHANGES[name]
    for name in ("dataset", "skip_broken_images", "max_train_images", "augmentation", "seed", "num_epochs")
} | {
    "architecture": ("tf-nas-a", "mobilenet_v2", {}),
    "resolution": (28, 32, {}),
    "num_warmup_epochs": (0, 2, {}),
    "batch_size": (1, 2, {}),
    "lr_schedule": ("per_epoch", "per_step", {}),
    "val_fraction": (0, 0.2, {}),
    "lr": (0.1, 0.2, {}),
    "momentum": (0.1, 0.2, {}),
    "weight_decay": (0.1, 0.2, {}),
    "grad_clip_norm": (0.1, 0.2, {}),
    "label_smoothing": (0.1, 0.2, {}),
    "dropout": (0.1, 0.2, {}),
    "drop_connect": (0.1, 0.2, {}),
    "ema_decay": (None, 0.2, {}),
    "mixed_precision": (False, True, {}),
    "num_threads": (1, 2, {}),
}
TRAIN_WITHOUT_EFFECT = {
    *("data_dir", "train_list", "arch_list", "test_list", "download"),
    *("device", "num_data_workers"),
}


def search(**fields: Any) -> SearchConfig:
    return SearchConfig(**{"space": "paper", "target_latency_ms": 1.0} | fields)


def test_every_field_is_known_to_have_an_effect_on_the_result_or_none() -> None:
    # Only one method comes with every version of the package: see the test below.
    covered = {*SEARCH_CHANGES, *FIELDS_WITHOUT_EFFECT, "method"}
    assert set(SearchConfig.model_fields) <= covered, "a new field: does it change results?"
    assert TRAIN_CHANGES.keys() | TRAIN_WITHOUT_EFFECT == TrainConfig.model_fields.keys()


@pytest.mark.parametrize(
    "changes",
    [
        *({"device": name} for name in ("cpu", "cuda", "cuda:1")),
        *({"kernels": "torch"}, {"latency_table": "other.json"}, {"latency_batch_size": 3}),
        {"num_data_workers": 3},
        {"data_dir": "elsewhere"},
        *({"train_list": "other.txt"}, {"arch_list": "other.txt"}, {"test_list": "other.txt"}),
    ],
    ids=str,
)
def test_where_and_how_fast_a_search_runs_is_no_part_of_its_identity(changes: dict[str, Any]) -> None:
    images = {"dataset": "image_list", "data_dir": "x", "train_list": "y", "arch_list": "z"}
    configs = [search(**images), search(**images | changes)]
    assert search_identity(configs[0], "table", "data") == search_identity(configs[1], "table", "data")
    assert warmup_hash(configs[0], "data", "cpu") == warmup_hash(configs[1], "data", "cpu")


@pytest.mark.parametrize("field", SEARCH_CHANGES)
def test_a_field_of_a_search_that_has_an_effect_is_part_of_its_identity(field: str) -> None:
    one, other, needed = SEARCH_CHANGES[field]
    configs = [search(**needed | {field: value}) for value in (one, other)]
    identities = [search_identity(config, "table", "data") for config in configs]
    assert identities[0] != identities[1]
    warmups = [warmup_hash(config, "data", "cpu") for config in configs]
    assert (warmups[0] == warmups[1]) == (field in FIELDS_AFTER_WARMUP)


def test_method_table_images_and_version_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = search_identity(search(), "table", "data")
    assert identity["config"]["method"] == "tf_nas"
    assert identity != search_identity(search(), "other table", "data")
    assert identity != search_identity(search(), "table", "other data")
    warmup = warmup_hash(search(), "data", "cpu")
    assert warmup not in (warmup_hash(search(), "other data", "cpu"), warmup_hash(search(), "data", "cuda"))
    monkeypatch.setattr("nas.search.search_identity.RESULTS_VERSION", 99)
    assert identity != search_identity(search(), "table", "data")
    assert warmup != warmup_hash(search(), "data", "cpu")


def test_a_new_field_is_part_of_a_warm_ups_identity_unless_it_is_listed() -> None:
    class Extended(SearchConfig):
        stem_dropout: float = 0.0

    plain, other = (
        Extended(space="paper", target_latency_ms=1.0),
        Extended(space="paper", target_latency_ms=1.0, stem_dropout=0.1),
    )
    assert warmup_hash(plain, "data", "cpu") != warmup_hash(other, "data", "cpu")


@pytest.mark.parametrize("field", TRAIN_CHANGES)
def test_a_field_of_a_training_that_has_an_effect_is_part_of_its_identity(field: str) -> None:
    one, other, needed = TRAIN_CHANGES[field]
    base = {"architecture": "tf-nas-a"} | needed
    identities = [training_identity(TrainConfig(**base | {field: value}), "data") for value in (one, other)]
    assert identities[0] != identities[1]


def test_an_alias_and_a_default_written_out_are_the_same_search() -> None:
    def identity(**fields: Any) -> dict[str, Any]:
        return search_identity(search(**fields), "table", "data")

    assert identity(sampling="bi") == identity(sampling="bi_random") == identity()
    assert identity(objective="fbnet", objective_exponent=0.6) == identity(objective="fbnet")
    assert identity(objective="proxyless_mul", objective_exponent=0.3) == identity(objective="proxyless_mul")
    assert identity(objective="tfnas", objective_exponent=0.3) == identity(objective="tfnas")


def test_fields_of_another_objective_are_no_part_of_the_identity() -> None:
    def identity(**fields: Any) -> dict[str, Any]:
        return search_identity(search(**fields), "table", "data")

    assert identity(objective_scale=0.3) == identity(latency_multiplier_lr=0.3) == identity()
    assert "latency_multiplier_lr" not in identity()["config"]
    assert identity(objective="fbnet", objective_scale=0.3) != identity(objective="fbnet")
