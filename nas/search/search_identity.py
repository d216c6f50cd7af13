"""Which search is which: hashes of all that determines a result, and of nothing else."""

from typing import Any

from nas.config import SearchConfig
from nas.foundation.identity import fingerprint

RESULTS_VERSION = 2
"""Raise it when the same config, lookup table and images no longer give the same numbers.

The golden trajectories in the tests show when; `make goldens` remakes them. Results of other versions are
kept, and never compared with those of this one.
"""

FIELDS_WITHOUT_EFFECT = (
    *("data_dir", "train_list", "arch_list", "test_list", "download", "latency_table"),
    *("latency_batch_size", "device", "kernels", "num_data_workers"),
)
"""They say where things are, whose content has a fingerprint of its own, or only affect speed."""

FIELDS_AFTER_WARMUP = (
    *("target_latency_ms", "sampling", "elasticity", "derivation", "refine_widths"),
    *("objective", "latency_weight", "objective_scale", "objective_exponent", "latency_multiplier_lr"),
    *("weight_steps_per_arch_step", "arch_lr", "arch_lr_schedule"),
    *("arch_beta1", "arch_beta2", "arch_weight_decay"),
    *("initial_temperature", "final_temperature", "temperature_decay"),
    *("num_evaluations", "evaluation_sample"),
)
"""Fields that are read after the epochs that searches can share, which train weights alone."""

VALUES_OF_BEFORE = {
    "derivation": "argmax",
    "arch_lr_schedule": "constant",
}
"""Fields that are newer than the results version, with the value under which results are as before.

At that value they are no part of an identity, so that results of before are kept.
"""


def result_fields(config: SearchConfig) -> dict[str, Any]:
    """The fields of a config that determine its result, defaults resolved."""
    config = config.as_searched()
    # The reported error depends on the target even where nothing else does; and a device is no part of this.
    ignored = {*FIELDS_WITHOUT_EFFECT, *config.unused_fields()} - {"target_latency_ms", "deterministic"}
    fields = config.model_dump(mode="json", exclude=ignored)
    fields = {
        name: value
        for name, value in fields.items()
        if name not in VALUES_OF_BEFORE or value != VALUES_OF_BEFORE[name]
    }
    return fields | {name: value for name, value in config.objective_fields().items() if name in fields}


def search_identity(config: SearchConfig, table_fingerprint: str, data_fingerprint: str) -> dict[str, Any]:
    """All that determines the result of a search: its cell, and its checkpoints, are known by it."""
    return {
        "results_version": RESULTS_VERSION,
        "config": result_fields(config),
        "latency_table": table_fingerprint,
        "data": data_fingerprint,
    }


def warmup_hash(config: SearchConfig, data_fingerprint: str, device_type: str) -> str:
    """All that determines the warm-up of a search: searches with equal hashes may share one.

    Args:
        device_type: where it is computed: `cpu` or `cuda`.
    """
    fields = result_fields(config)
    return fingerprint(
        {
            "results_version": RESULTS_VERSION,
            "config": {name: value for name, value in fields.items() if name not in FIELDS_AFTER_WARMUP},
            "data": data_fingerprint,
            "device": device_type,
        }
    )
