"""The samplers and pruners of Optuna that a study can name."""

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from experiments.specs.study_spec import Study

_SMALLEST_POPULATION, _LARGEST_POPULATION = 8, 50
_GENERATIONS = 5
_REDUCTION_FACTOR = 3


def make_sampler(study: Study, number: int) -> BaseSampler:
    """The sampler of the point with this number.

    Each point has its own sampler, so points do not depend on how often a study was stopped and resumed.
    Samplers read the earlier points from the storage.
    """
    seed = int(np.random.SeedSequence((study.sampler_seed, number)).generate_state(1)[0])
    if study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if study.sampler == "nsga2":
        # With Optuna's default of 50 most studies would never reach a second generation.
        num_trials = study.budget.num_trials or _LARGEST_POPULATION * _GENERATIONS
        size = min(max(num_trials // _GENERATIONS, _SMALLEST_POPULATION), _LARGEST_POPULATION)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=size)
    if study.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def make_pruner(study: Study, num_warmup_epochs: int) -> optuna.pruners.BasePruner:
    """The pruner; it never prunes in warm-up, when architectures do not compete yet."""
    if study.pruning == "median":
        # Optuna counts steps from 0 here.
        return optuna.pruners.MedianPruner(n_warmup_steps=num_warmup_epochs + 1)
    if study.pruning == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=num_warmup_epochs + 1, reduction_factor=_REDUCTION_FACTOR
        )
    return optuna.pruners.NopPruner()
