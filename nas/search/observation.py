"""What can be read off a supernet after an epoch: metrics and a trajectory's row of arrays."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.latency.elasticity import ScalingReport
from nas.latency.table import LatencyTable
from nas.space.redundancy import has_other_encodings
from nas.supernet.supernet import Supernet


def observe_metrics(supernet: Supernet, table: LatencyTable) -> dict[str, float]:
    """Expected latency and entropy, by the parameters, the widths and a lookup table."""
    log_alpha_LO = supernet.log_alpha().detach()
    terms_LO = torch.where(log_alpha_LO.isinf(), 0, log_alpha_LO.exp() * log_alpha_LO)
    max_entropy_L = supernet.has_candidate_LO.sum(-1).log()
    return {
        "expected_latency_ms": float(supernet.expected_latency_ms(table).detach()),
        "alpha_entropy": float((-terms_LO.sum(-1) / max_entropy_L).mean()),
        "redundant_encoding": float(_is_redundant(supernet)),
    }


def observe_arrays(
    supernet: Supernet,
    train_count_LO: NDArray[np.int64],
    scaling: ScalingReport | None,
    *,
    refine_widths: bool,
) -> dict[str, NDArray[Any]]:
    """The epoch's row of each array of `Trajectory`.

    Args:
        train_count_LO: how many paths through each candidate were trained.
        scaling: None where no width was scaled.
    """
    num_phases = 1 + len(supernet.space.stages) + refine_widths
    scaling_ms_P = np.full(num_phases, np.nan)
    if scaling is not None:
        scaling_ms_P[: len(scaling.latencies_ms)] = scaling.latencies_ms
    return {
        "alpha_ELO": supernet.log_alpha().detach().cpu().numpy(),
        "beta_ESD": supernet.log_beta().detach().cpu().numpy(),
        "mid_channels_ELO": np.array(supernet.widths(), dtype=np.int64),
        "derived_op_EL": np.array(supernet.derived_ops(), dtype=np.int64),
        "train_count_ELO": train_count_LO,
        "scaling_ms_EP": scaling_ms_P,
        "redundant_E": np.array(_is_redundant(supernet)),
    }


def _is_redundant(supernet: Supernet) -> bool:
    is_skip = supernet.depth == "skip"
    return is_skip and has_other_encodings(supernet.space, supernet.derived_ops())
