"""Optuna's samplers as a study uses them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler


def make_tpe(seed: int) -> BaseSampler:
    """Make a tree-structured Parzen estimator of all parameters together, conditional ones apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def make_nsga2(seed: int) -> BaseSampler:
    """Make a genetic algorithm that selects by non-dominated rank and crowding."""
    return optuna.samplers.NSGAIISampler(seed=seed)


def make_nsga3(seed: int) -> BaseSampler:
    """Make a genetic algorithm that selects by non-dominated rank and reference directions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIIISampler(seed=seed)


def make_gp(seed: int) -> BaseSampler:
    """Make a Gaussian process per objective; conditional parameters are drawn at random."""
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def make_random(seed: int) -> BaseSampler:
    """Make the control: every configuration is drawn from the space alone."""
    return optuna.samplers.RandomSampler(seed=seed)


MAKERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "auto": make_tpe,
    "tpe": make_tpe,
    "nsga2": make_nsga2,
    "nsga3": make_nsga3,
    "gp": make_gp,
    "random": make_random,
}
