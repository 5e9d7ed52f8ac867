"""Which channels matter: importance methods, their registry, and the cache of their scores."""

from dirprune.importance import dirichlet, gradients, magnitude, random_order
from dirprune.importance.base import (
    Scorer,
    ScoringContext,
    Selector,
    compute_scores,
    compute_selection,
    keep_best,
)
from dirprune.importance.cache import ScoreCache
from dirprune.importance.registry import Method, create, get_method, list_methods, register
from dirprune.importance.selection import Selection, find_scores, select_channels

__all__ = [
    "Method",
    "ScoreCache",
    "Scorer",
    "ScoringContext",
    "Selection",
    "Selector",
    "compute_scores",
    "compute_selection",
    "create",
    "dirichlet",
    "find_scores",
    "get_method",
    "gradients",
    "keep_best",
    "list_methods",
    "magnitude",
    "random_order",
    "register",
    "select_channels",
]
