"""Samplers: what chooses the next trial from those before. Optuna comes in where one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dirprune.errors import ConfigurationError, suggest

if TYPE_CHECKING:
    import optuna

    from dirprune.study.floor import Floor
    from dirprune.tuning.samplers.problem import Problem

__all__ = ["AUTO", "CHOICES", "SAMPLERS", "check_choice", "make_sampler"]

AUTO = "auto"
SAMPLERS = ("ehvi", "tpe", "front", "nsga2", "nsga3", "gp", "random")
CHOICES = (AUTO, *SAMPLERS)
"""What a study may say; `auto` picks one of the samplers."""
N_STARTUP = 8
"""First trials of `ehvi`, which come from the space alone."""


def check_choice(name: str) -> None:
    """Check that a study may choose a sampler by that name.

    Raises:
        ConfigurationError: If there is none.
    """
    if name not in CHOICES:
        raise ConfigurationError(f"unknown sampler {name!r}{suggest(name, CHOICES)}")


def make_sampler(
    name: str, seed: int, n_known: int, floor: Floor | None = None, problem: Problem | None = None
) -> optuna.samplers.BaseSampler:
    """Make a sampler; a resumed study draws on instead of drawing the same again.

    Args:
        name: One of `SAMPLERS`.
        seed: The study's seed.
        n_known: Trials that the study has already.
        floor: The study's least accuracy.
        problem: What the study knows of configurations; "ehvi" needs it.
    Raises:
        ConfigurationError: If the name is unknown.
    """
    if name not in SAMPLERS:
        raise ConfigurationError(f"unknown sampler {name!r}{suggest(name, SAMPLERS)}")
    from dirprune.tuning.samplers.learning import LearningSampler  # loads Optuna
    from dirprune.tuning.samplers.makers import MAKERS

    sampler = MAKERS[name](int(np.random.SeedSequence((seed, n_known)).generate_state(1)[0]), problem)
    if isinstance(sampler, LearningSampler):
        sampler.floor = floor
    return sampler
