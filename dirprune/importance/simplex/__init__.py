"""Posteriors on the simplex over each group's channels: families, how they are fitted, what they score."""

from dirprune.importance.simplex.dirichlet import DirichletPosterior
from dirprune.importance.simplex.family import SimplexFamily
from dirprune.importance.simplex.fitting import SimplexOptions, compute_loss, draw_batches, fit_
from dirprune.importance.simplex.generalized_dirichlet import GeneralizedDirichletPosterior, draw_orders
from dirprune.importance.simplex.logistic_normal import LogisticNormalPosterior
from dirprune.importance.simplex.scorers import (
    DirichletOptions,
    GeneralizedDirichletOptions,
    LogisticNormalOptions,
    SimplexSwitches,
)

__all__ = [
    "DirichletOptions",
    "DirichletPosterior",
    "GeneralizedDirichletOptions",
    "GeneralizedDirichletPosterior",
    "LogisticNormalOptions",
    "LogisticNormalPosterior",
    "SimplexFamily",
    "SimplexOptions",
    "SimplexSwitches",
    "compute_loss",
    "draw_batches",
    "draw_orders",
    "fit_",
]
