"""Which channels matter: importance methods, their registry, and the cache of their scores."""

from dirprune.importance import (
    batch_norm,
    fpgm,
    gradients,
    greedy,
    leave_one_out,
    magnitude,
    random_order,
    shapley,
    simplex,
)
from dirprune.importance.base import Scorer, ScoringContext, Selector, keep_best
from dirprune.importance.cache import ScoreCache
from dirprune.importance.calling import compute_scores, compute_selection
from dirprune.importance.registry import Method, create, get_method, list_methods, register
from dirprune.importance.selection import Selection, find_scores, select_channels

__all__ = [
    "Method",
    "ScoreCache",
    "Scorer",
    "ScoringContext",
    "Selection",
    "Selector",
    "batch_norm",
    "compute_scores",
    "compute_selection",
    "create",
    "find_scores",
    "fpgm",
    "get_method",
    "gradients",
    "greedy",
    "keep_best",
    "leave_one_out",
    "list_methods",
    "magnitude",
    "random_order",
    "register",
    "select_channels",
    "shapley",
    "simplex",
]
