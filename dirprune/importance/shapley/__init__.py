"""Shapley values of a group's channels: estimators that know only a value function, and methods on them."""

from dirprune.importance.shapley.borders_first import estimate_by_borders_first
from dirprune.importance.shapley.estimate import Estimate
from dirprune.importance.shapley.exact import compute_exact
from dirprune.importance.shapley.kernel import estimate_by_kernel
from dirprune.importance.shapley.methods import ShapleyScorer
from dirprune.importance.shapley.ols import estimate_by_ols
from dirprune.importance.shapley.partial import estimate_by_sizes
from dirprune.importance.shapley.permutation import estimate_by_permutations
from dirprune.importance.shapley.settling import default_evaluations, estimate_until_settled
from dirprune.importance.shapley.with_shap import estimate_with_shap

__all__ = [
    "Estimate",
    "ShapleyScorer",
    "compute_exact",
    "default_evaluations",
    "estimate_by_borders_first",
    "estimate_by_kernel",
    "estimate_by_ols",
    "estimate_by_permutations",
    "estimate_by_sizes",
    "estimate_until_settled",
    "estimate_with_shap",
]
