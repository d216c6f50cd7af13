"""A Ray of our own on this machine: quiet, closed to others, and gone afterwards."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT = {
    # The reporter that heeds `verbose=0`.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Otherwise Ray writes one into the home folder.
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
_OBJECT_STORE_BYTES = 100_000_000


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def local_ray() -> Iterator[None]:
    """Within it Ray runs on this machine's cores and GPUs, whatever other Ray there is."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Before `ray.init` sets it: that warns that only this launch may use its Ray.
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    ray.init(
        address="local",
        num_cpus=num_cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE_BYTES,
    )
    try:
        yield
    finally:
        ray.shutdown()
