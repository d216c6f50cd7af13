"""GP-NAS: as random search, but a Gaussian process chooses the networks of the last round.

Shapes: N networks of the pool, F features of a code.

Source: Li et al., GP-NAS: Gaussian Process based Neural Architecture Search, CVPR 2020.
"""

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.search.methods.random_search import EVALUATIONS_PER_ROUND, Proposal, RandomSearch
from nas.search.predictor import AccuracyPredictor, choose_informative, cross_validated_tau, make_kernel
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space

_NUM_SAMPLED_FROM = 250
"""Size of the part of the pool from which informative networks are chosen; its cube is what that costs."""


class GpNas(RandomSearch):
    """Evaluates a sample of the pool, and in the last round the ten networks that are predicted best."""

    ignored_fields = RandomSearch.ignored_fields - {"evaluation_sample"}

    @cached_property
    def codes_NF(self) -> NDArray[np.float64]:
        """Codes of the networks of the pool, without the features in which none differ."""
        codes_NF = np.array([encode(architecture) for architecture in self.pool])
        return codes_NF[:, np.ptp(codes_NF, axis=0) > 0]

    @cached_property
    def _sample(self) -> list[int]:
        """The networks of all rounds but the last, in order; it does not depend on any accuracy."""
        num_sampled = self.task.config.num_evaluations - EVALUATIONS_PER_ROUND
        if self.task.config.evaluation_sample == "random":
            return list(range(num_sampled))
        codes_NF = self.codes_NF[: max(_NUM_SAMPLED_FROM, num_sampled)]
        return choose_informative(codes_NF, num_sampled, make_kernel())

    def _propose(self, *, is_last: bool) -> Proposal:
        """The next of the sample, or at last the best predicted that are left."""
        done = len(self._evaluations)
        known = self._sample[:done]
        following = self._sample[done : done + EVALUATIONS_PER_ROUND]
        if not known:
            return Proposal(following)
        accuracies_N = np.array([each.val_accuracy for each in self._evaluations])
        scores_N = AccuracyPredictor().fit(self.codes_NF[known], accuracies_N).predict(self.codes_NF)
        tau = cross_validated_tau(self.codes_NF[known], accuracies_N)
        # It is undefined where all accuracies are equal, which a metric cannot say.
        metrics = (
            {}
            if math.isnan(tau.value)
            else {"predictor_tau": tau.value, "predictor_tau_low": tau.low, "predictor_tau_high": tau.high}
        )
        if is_last:
            is_known = np.isin(np.arange(len(self.pool)), known)
            best = np.argsort(np.where(is_known, np.inf, -scores_N), kind="stable")
            following = best[:EVALUATIONS_PER_ROUND].tolist()
        return Proposal(following, scores_N.tolist(), metrics)


def encode(architecture: Architecture) -> list[float]:
    """The code of a network: for each layer of the space whether it is kept, and its operator's traits.

    They are scaled to 0 to 1, as the predictor's kernel expects. Widths are no part of it: they
    follow from the operators and the target.
    """
    space = get_space(architecture.space)
    code = np.zeros((len(space.layers), 4))
    for layer, op, _ in architecture.layers:
        code[space.layers.index(layer)] = 1, (op.kernel_size - 3) / 2, (op.expansion - 3) / 3, op.has_se
    return [float(value) for value in code.ravel()]
