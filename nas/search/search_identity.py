"""Which search is which: hashes of all that determines a result, and of nothing else."""

from typing import Any

from nas.config import SearchConfig
from nas.foundation.identity import code_version, fingerprint

FIELDS_WITHOUT_EFFECT = (
    *("data_dir", "train_list", "test_list", "download", "latency_table"),
    *("latency_batch_size", "device", "num_data_workers"),
)
"""Where things are (what is found there has a fingerprint of its own), and what only makes it fast."""

FIELDS_AFTER_WARMUP = (
    *("target_latency_ms", "sampling", "elasticity", "refine_widths"),
    *("objective", "latency_weight", "objective_scale", "objective_exponent"),
    *("weight_steps_per_arch_step", "arch_lr", "arch_beta1", "arch_beta2", "arch_weight_decay"),
    *("initial_temperature", "temperature_decay"),
)
"""What only joint epochs heed. Warm-up trains weights alone, on one path, at the initial widths."""


def result_fields(config: SearchConfig) -> dict[str, Any]:
    """The fields of a config that determine its result, aliases and defaults resolved."""
    ignored = {*FIELDS_WITHOUT_EFFECT, *config.unused_fields()}
    fields = config.model_dump(mode="json", exclude=ignored)
    fields["sampling"] = "bi_random" if config.sampling == "bi" else config.sampling
    if "objective_exponent" in fields:
        fields["objective_exponent"] = config.effective_exponent
    return fields


def config_hash(config: SearchConfig, table_fingerprint: str, data_fingerprint: str) -> str:
    """What a checkpoint belongs to: a search by its config, its lookup table and its images."""
    return fingerprint(
        {"config": result_fields(config), "latency_table": table_fingerprint, "data": data_fingerprint}
    )


def warmup_hash(config: SearchConfig, data_fingerprint: str, device_type: str) -> str:
    """All that determines the warm-up of a search: searches with equal hashes may share one.

    Args:
        device_type: where it is computed: `cpu` or `cuda`.
    """
    fields = result_fields(config)
    return fingerprint(
        {
            "config": {name: value for name, value in fields.items() if name not in FIELDS_AFTER_WARMUP},
            "data": data_fingerprint,
            "device": device_type,
            "code": code_version(),
        }
    )
