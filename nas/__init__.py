"""Latency-constrained differentiable neural architecture search, for notebooks and scripts.

The names below are public. Each is imported when it is first used: importing torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.config import SearchConfig as SearchConfig
    from nas.config import TrainConfig as TrainConfig
    from nas.latency.elasticity import elasticity_scaling as elasticity_scaling
    from nas.latency.elasticity import scale_to_latency as scale_to_latency
    from nas.latency.measurement import measure_table as measure_table
    from nas.latency.table import LatencyTable as LatencyTable
    from nas.search.records import EpochRecord as EpochRecord
    from nas.search.records import Trajectory as Trajectory
    from nas.search.search import run_search as run_search
    from nas.space.architecture import Architecture as Architecture
    from nas.space.derived_network import DerivedNetwork as DerivedNetwork
    from nas.space.macro_space import Space as Space
    from nas.space.macro_space import get_space as get_space
    from nas.space.profile import count_macs as count_macs
    from nas.space.profile import count_parameters as count_parameters
    from nas.supernet.supernet import Supernet as Supernet
    from nas.training.training import TrainRecord as TrainRecord
    from nas.training.training import run_training as run_training

_MODULE_OF = {
    "Architecture": "nas.space.architecture",
    "DerivedNetwork": "nas.space.derived_network",
    "EpochRecord": "nas.search.records",
    "LatencyTable": "nas.latency.table",
    "SearchConfig": "nas.config",
    "Space": "nas.space.macro_space",
    "Supernet": "nas.supernet.supernet",
    "TrainConfig": "nas.config",
    "TrainRecord": "nas.training.training",
    "Trajectory": "nas.search.records",
    "count_macs": "nas.space.profile",
    "count_parameters": "nas.space.profile",
    "elasticity_scaling": "nas.latency.elasticity",
    "get_space": "nas.space.macro_space",
    "measure_table": "nas.latency.measurement",
    "run_search": "nas.search.search",
    "run_training": "nas.training.training",
    "scale_to_latency": "nas.latency.elasticity",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
