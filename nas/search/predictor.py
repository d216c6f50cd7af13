"""The accuracy predictor of GP-NAS: a Gaussian process over the codes of architectures.

Shapes: N architectures whose accuracy is known (or a pool to choose from), M others, F features of a code,
B resamples.

Source: Li et al., GP-NAS: Gaussian Process based Neural Architecture Search, CVPR 2020.
"""

import warnings
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import kendalltau, norm, rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]

_MAX_FOLDS = 10
_NUM_RESAMPLES = 2000


def make_kernel() -> Kernel:
    """The kernel before any accuracy is known: a linear mean, deviations from it, and noise.

    A linear mean with a Gaussian prior on its weights is the dot product as a kernel. The initial values suit
    features of about 0 to 1. Deviations have one length scale for all features: one for each would be more to
    learn than the accuracies can teach (docs/oracle.md).
    """
    return DotProduct() + ConstantKernel(1.0) * RBF(2.0) + WhiteKernel(0.1)


class AccuracyPredictor:
    """Predicts how architectures rank in accuracy.

    It learns normal scores of the accuracies' ranks, not accuracies: a few bad networks would otherwise
    outweigh the differences among the good ones. Predictions are such scores, so only their order has a
    meaning. Equal input gives equal output to the last bit; no random numbers are drawn.

    Attributes:
        kernel: that of `make_kernel`; after a fit, with hyper-parameters of highest marginal likelihood.
    """

    def __init__(self) -> None:
        self.kernel = make_kernel()

    def fit(self, codes_NF: Floats, accuracies_N: Floats) -> Self:
        """Learns from architectures of known accuracy, in any unit.

        Raises:
            ValueError: a code or an accuracy is not finite, or the lengths differ.
        """
        process = GaussianProcessRegressor(make_kernel(), random_state=0)
        # One thread: on matrices this small, several wait for each other ten times as long as they work.
        with warnings.catch_warnings(), threadpool_limits(1):
            # Where nothing deviates from the mean, the length scale is at its upper bound; good labels have
            # their noise at the lower one. Both are right.
            warnings.filterwarnings("ignore", "The optimal value found for", ConvergenceWarning)
            self._process = process.fit(codes_NF, _normal_scores(accuracies_N))
        self.kernel = process.kernel_
        return self

    def predict(self, codes_MF: Floats) -> Floats:
        """Returns scores_M: the higher, the more accurate."""
        return np.asarray(self._process.predict(codes_MF))


class KendallTau(NamedTuple):
    """Kendall's tau-b of predicted and known accuracies, with the ends of its 95 % interval.

    All three are NaN where tau is undefined: all values equal.
    """

    value: float
    low: float
    high: float


def cross_validated_tau(codes_NF: Floats, accuracies_N: Floats) -> KendallTau:
    """Estimates how well a predictor that learns from these architectures ranks others.

    Ten folds (fewer with fewer architectures, in a fixed random order): each architecture is predicted by a
    predictor that was fitted without it, hyper-parameters included. The interval is the percentile bootstrap
    over architectures.

    Raises:
        ValueError: there are fewer than two architectures, or as in `AccuracyPredictor.fit`.
    """
    scores_N = np.empty(len(codes_NF))
    folds = KFold(min(_MAX_FOLDS, len(codes_NF)), shuffle=True, random_state=0)
    for known, others in folds.split(codes_NF):
        predictor = AccuracyPredictor().fit(codes_NF[known], accuracies_N[known])
        scores_N[others] = predictor.predict(codes_NF[others])
    return bootstrap_tau(scores_N, accuracies_N)


def bootstrap_tau(scores_N: Floats, accuracies_N: Floats) -> KendallTau:
    """Kendall's tau-b of two lists, with the percentile bootstrap's 95 % interval (fixed random numbers).

    In simulations with 20 to 100 pairs, 94 to 98 % of the intervals contained the truth.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, percentile intervals.
    """
    tau = float(kendalltau(scores_N, accuracies_N).statistic)
    if np.isnan(tau):
        return KendallTau(tau, tau, tau)
    num = len(scores_N)
    counts_BN = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), _NUM_RESAMPLES)
    low, high = np.nanquantile(_weighted_tau(scores_N, accuracies_N, counts_BN), (0.025, 0.975))
    return KendallTau(tau, float(low), float(high))


def _weighted_tau(one_N: Floats, other_N: Floats, counts_BN: NDArray[np.int64]) -> Floats:
    """Returns tau-b of each resample, in which a pair of values occurs as often as its count says."""
    sign_NN = np.sign(one_N[:, None] - one_N)
    other_sign_NN = np.sign(other_N[:, None] - other_N)

    def total_B(pairs_NN: Floats) -> Floats:
        return np.asarray(((counts_BN @ pairs_NN) * counts_BN).sum(axis=1))

    untied_B = total_B(np.abs(sign_NN)) * total_B(np.abs(other_sign_NN))
    # A resample of equal values has no tau.
    untied_B[untied_B == 0] = np.nan
    return np.asarray(total_B(sign_NN * other_sign_NN) / np.sqrt(untied_B))


def choose_informative(codes_NF: Floats, num: int, kernel: Kernel) -> list[int]:
    """Chooses from a pool the architectures whose accuracies would tell most about those of the others.

    Greedily adds the x that maximizes var(x | A) / var(x | rest without A and x), where A is what was added
    before and the variances are those of the Gaussian process. That is the mutual information gained.

    Args:
        num: how many to choose.
        kernel: of the process, with a noise term; else equal codes have no finite ratio.

    Returns:
        Indices in the pool, in the order in which they were chosen.

    Raises:
        ValueError: the pool has fewer than `num`.

    Source: Krause, Singh and Guestrin, Near-Optimal Sensor Placements in Gaussian Processes, JMLR 2008.
    """
    if num > len(codes_NF):
        raise ValueError(f"num: {num}; the pool has {len(codes_NF)}")
    is_left_N = np.ones(len(codes_NF), bool)
    # Of all given A; and the inverse of the covariance of the rest, whose diagonal is 1 / var(x | others).
    covariance_NN = np.asarray(kernel(codes_NF))
    with threadpool_limits(1):
        precision_NN = cho_solve(cho_factor(covariance_NN), np.eye(len(codes_NF)))
    chosen: list[int] = []
    for _ in range(num):
        ratio_N = np.diag(covariance_NN) * np.diag(precision_NN)
        index = int(np.argmax(np.where(is_left_N, ratio_N, -np.inf)))
        chosen.append(index)
        is_left_N[index] = False
        covariance_NN = _eliminate(covariance_NN, index)
        precision_NN = _eliminate(precision_NN, index)
    return chosen


def _eliminate(matrix_NN: Floats, index: int) -> Floats:
    """One step of Gaussian elimination: a covariance given x, or the precision of the rest without x."""
    return np.asarray(matrix_NN - np.outer(matrix_NN[index], matrix_NN[index]) / matrix_NN[index, index])


def _normal_scores(values_N: Floats) -> Floats:
    """The normal quantile of each value's rank; equal values have their average rank."""
    return np.asarray(norm.ppf((rankdata(values_N) - 0.5) / len(values_N)))
