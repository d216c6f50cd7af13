"""What searches found, judged by the oracle of their space: see `nas.oracle.space_oracle`.

Shapes: E epochs, N networks of the space.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from nas.oracle.space_oracle import SpaceOracle, load_oracle
from nas.space.enumeration import all_architectures, initial_network, operator_code

NAN = float("nan")


def oracle_of(run: Run) -> SpaceOracle | None:
    """The oracle that knows a run's networks: of its space and images, at the initial widths."""
    space = run.config.get("space")
    if run.kind != "search" or space is None or run.config.get("elasticity") is not False:
        return None
    oracle = load_oracle(str(space))
    return oracle if oracle and oracle.dataset == run.config.get("dataset") else None


def oracle_accuracy(run: Run, experiment: Experiment) -> float:
    """Test accuracy, trained from scratch, of the network that a search ended with."""
    oracle, index = _find(run)
    return NAN if oracle is None or index is None else float(oracle.accuracies_N[index])


def oracle_regret(run: Run, experiment: Experiment) -> float:
    """How much more accurate the best network is that meets the target."""
    oracle, index = _find(run)
    return NAN if oracle is None or index is None else float(_regrets_N(run, experiment, oracle)[index])


def supernet_tau(run: Run, experiment: Experiment) -> float:
    """Kendall's tau-b of accuracies with the supernet's weights and of those from scratch."""
    oracle = oracle_of(run)
    if oracle is None or run.evaluations is None:
        return NAN
    networks = run.evaluations["architecture"]
    indices = [index for network in networks if (index := oracle.index_of(network)) is not None]
    if len(indices) < len(networks):
        return NAN
    return float(kendalltau(run.evaluations["val_accuracy"], oracle.accuracies_N[indices]).statistic)


def regret_by_epoch(run: Run, experiment: Experiment) -> NDArray[np.float64]:
    """Regret of the network that would be derived at the end of each epoch, (E,)."""
    oracle = oracle_of(run)
    assert oracle is not None
    assert run.trajectory is not None
    networks = [initial_network(run.space, ops_L) for ops_L in run.trajectory.derived_op_EL.tolist()]
    codes = [operator_code(network, run.space) for network in networks]
    return _regrets_N(run, experiment, oracle)[[oracle.codes.index(code) for code in codes]]


def _regrets_N(run: Run, experiment: Experiment, oracle: SpaceOracle) -> NDArray[np.float64]:
    """By the lookup table of the searches, in which their target was set; NaN if none of them has kept it."""
    table = experiment.table
    if table is None:
        return np.full(len(oracle.codes), NAN)
    latencies_ms_N = np.array([table.latency_ms(network) for network in all_architectures(run.space)])
    return oracle.regrets_N(run.number("target_latency_ms"), latencies_ms_N)


def _find(run: Run) -> tuple[SpaceOracle | None, int | None]:
    """The oracle of a run's network, and its place there."""
    oracle = oracle_of(run)
    return oracle, None if oracle is None or run.architecture is None else oracle.index_of(run.architecture)
