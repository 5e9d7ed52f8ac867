"""The samplers of a study: Optuna's and our own, each of which draws from a view of the study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseGASampler, BaseSampler

from dirprune.tuning.samplers.front import FrontSampler
from dirprune.tuning.samplers.learning import LearningSampler
from dirprune.tuning.samplers.problem import Problem

POPULATION = 24
N_GP = 48
"""Trials that a Gaussian process is fitted to; its time grows with the third power."""


def make_tpe(seed: int, problem: Problem | None) -> BaseSampler:
    """Make a tree-structured Parzen estimator of all parameters together, conditional ones apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return LearningSampler(optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed))


def make_nsga2(seed: int, problem: Problem | None) -> BaseSampler:
    """Make a genetic algorithm that selects by non-dominated rank and crowding."""
    return _without_generations(optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed))


def make_nsga3(seed: int, problem: Problem | None) -> BaseSampler:
    """Make a genetic algorithm that selects by non-dominated rank and reference directions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        base = optuna.samplers.NSGAIIISampler(population_size=POPULATION, seed=seed)
    return _without_generations(base)


def _without_generations(base: BaseGASampler) -> BaseSampler:
    """Let parents be selected from all trials of the view at each ask, instead of once in a generation.

    To the sampler every trial is of the first generation, and the one that it draws of the second.
    """
    return LearningSampler(base, system_attributes={base._get_generation_key(): 0})


def make_gp(seed: int, problem: Problem | None) -> BaseSampler:
    """Make a Gaussian process for each objective; conditional parameters are drawn at random."""
    base = optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return LearningSampler(base, n_best=N_GP // 2, n_recent=N_GP // 2)


def make_front(seed: int, problem: Problem | None) -> BaseSampler:
    """Make changes of members of the front."""
    return LearningSampler(FrontSampler(seed))


def make_ehvi(seed: int, problem: Problem | None) -> BaseSampler:
    """Make proposals by expected hypervolume improvement, which predicted losses would mislead (measured)."""
    from dirprune.tuning.samplers.ehvi import EhviSampler  # loads scikit-learn: seconds

    assert problem is not None
    return LearningSampler(EhviSampler(seed, problem), predicts=False)


def make_random(seed: int, problem: Problem | None) -> BaseSampler:
    """Make the control: every configuration is drawn from the space alone."""
    return optuna.samplers.RandomSampler(seed=seed)


MAKERS: Mapping[str, Callable[[int, Problem | None], BaseSampler]] = {
    "ehvi": make_ehvi,
    "tpe": make_tpe,
    "nsga2": make_nsga2,
    "nsga3": make_nsga3,
    "gp": make_gp,
    "front": make_front,
    "random": make_random,
}
