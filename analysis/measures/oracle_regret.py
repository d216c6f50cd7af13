"""What searches found, judged by the oracle of their space: see `nas.oracle.space_oracle`.

Shapes: E epochs, N networks of the space, L searchable layers, V evaluations.
"""

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from nas.oracle.space_oracle import SpaceOracle, load_oracle
from nas.space.architecture import Architecture
from nas.space.macro_space import Space

NAN = float("nan")


def oracle_of(run: Run) -> SpaceOracle | None:
    """The oracle that knows a run's networks: of its space, at the initial widths."""
    space = run.config.get("space")
    if run.kind != "search" or space is None or run.config.get("elasticity") is not False:
        return None
    return load_oracle(str(space))


def oracle_accuracy(run: Run, experiment: Experiment) -> float:
    """Test accuracy, trained from scratch, of the network that a search ended with."""
    return _of_network(run, lambda oracle, index: float(oracle.accuracies_N[index]))


def oracle_regret(run: Run, experiment: Experiment) -> float:
    """How much more accurate the best network is that is no slower."""
    return _of_network(run, lambda oracle, index: float(oracle.regrets_N[index]))


def supernet_tau(run: Run, experiment: Experiment) -> float:
    """Kendall's tau-b of accuracies with the supernet's weights and of those from scratch."""
    oracle = oracle_of(run)
    if oracle is None or run.evaluations is None:
        return NAN
    networks = [Architecture.model_validate(json.loads(text)) for text in run.evaluations["architecture"]]
    indices = [index for network in networks if (index := oracle.index_of(network)) is not None]
    if len(indices) < len(networks):
        return NAN
    return float(kendalltau(run.evaluations["val_accuracy"], oracle.accuracies_N[indices]).statistic)


def regret_by_epoch(run: Run, oracle: SpaceOracle) -> NDArray[np.float64]:
    """Regret of the network that would be derived at the end of each epoch, (E,)."""
    assert run.trajectory is not None
    codes = [_code(run.space, ops_L) for ops_L in run.trajectory.derived_op_EL]
    return np.asarray(oracle.regrets_N[[oracle.codes.index(code) for code in codes]])


def _of_network(run: Run, read: Callable[[SpaceOracle, int], float]) -> float:
    oracle = oracle_of(run)
    index = None if oracle is None or run.architecture is None else oracle.index_of(run.architecture)
    return NAN if oracle is None or index is None else read(oracle, index)


def _code(space: Space, ops_L: NDArray[np.int64]) -> str:
    """As `operator_code`: skipped layers leave no trace."""
    words = []
    for stage in range(len(space.stages)):
        ops = [op for layer, op in zip(space.layers, ops_L, strict=True) if layer.stage == stage]
        words.append("".join(str(op) for op in ops if op >= 0) or "x")
    return "-".join(words)
