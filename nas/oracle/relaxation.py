"""The differentiable relaxation of a table in the ideal: no sampling, no weight sharing, no noise.

Differentiable search climbs the expected accuracy of a distribution over networks. On a table, that
expectation and its gradient are exact. So what is lost here, the relaxation loses; what a real search loses
beyond it, sampled paths and shared weights lose.

Shapes: E encodings, L layers, O operators, S steps.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from nas.oracle.tabular import TabularOracle

_NUM_STEPS = 500
_LR = 0.1


@dataclass(frozen=True)
class Relaxation:
    """Gradient ascent on the expected accuracy.

    Attributes:
        expected_accuracies_S: before each step, as a fraction of 1.
        networks_S: index of the most probable network after each step.
        regrets_S: its regret, as a fraction of 1.
        seconds: wall time.
    """

    expected_accuracies_S: NDArray[np.float64]
    networks_S: NDArray[np.int64]
    regrets_S: NDArray[np.float64]
    seconds: float


def expected_accuracy(alpha_LO: Tensor, accuracies_E: Tensor) -> Tensor:
    """Returns the exact expectation, with each layer's operator drawn on its own by softmax(alpha).

    Args:
        accuracies_E: of all encodings in counting order: the last layer's operator changes first.
    """
    # One layer after the other takes its expectation, which sums over all encodings in the end.
    expected = accuracies_E
    for probs_O in torch.softmax(alpha_LO, dim=1):
        expected = probs_O @ expected.reshape(len(probs_O), -1)
    return expected[0]


def climb_relaxation(oracle: TabularOracle) -> Relaxation:
    """Climbs from equal probabilities by 500 steps of Adam with rate 0.1, on a table of all encodings."""
    num_encodings, num_layers = oracle.choices_EL.shape
    num_ops = (int(oracle.choices_EL.max()) + 1,) * num_layers
    assert num_encodings == math.prod(num_ops), "some encodings are missing"
    network_E = oracle.network_E[np.argsort(np.ravel_multi_index(tuple(oracle.choices_EL.T), num_ops))]
    accuracies_E = torch.from_numpy(oracle.mean_accuracies_N[network_E])
    alpha_LO = torch.zeros(num_layers, num_ops[0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([alpha_LO], lr=_LR, maximize=True)
    # Only now: making its first optimizer, torch imports for two seconds.
    start_s = time.perf_counter()
    expected, encodings = [], []
    # Threads would wait for each other longer than they work.
    with threadpool_limits(1):
        for _ in range(_NUM_STEPS):
            accuracy = expected_accuracy(alpha_LO, accuracies_E)
            (alpha_LO.grad,) = torch.autograd.grad(accuracy, alpha_LO)
            optimizer.step()
            expected.append(accuracy.item())
            encodings.append(np.ravel_multi_index(alpha_LO.argmax(dim=1).tolist(), num_ops))
    networks_S = network_E[encodings]
    return Relaxation(
        np.array(expected), networks_S, oracle.regrets_N[networks_S], time.perf_counter() - start_s
    )
