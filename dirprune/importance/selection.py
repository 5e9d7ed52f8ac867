"""From a method to kept channels, through the cache; what is above need not know a scorer from a selector."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dirprune.architecture import Architecture
from dirprune.errors import ImportanceError
from dirprune.importance.base import Kept, Scorer, Scores, ScoringContext, Selector, keep_best
from dirprune.importance.cache import ScoreCache, score_key
from dirprune.importance.calling import compute_scores, compute_selection


@dataclass(frozen=True)
class Selection:
    """What a method chose for one architecture.

    Attributes:
        kept: Sorted kept indices of every group.
        scores: For each group a tensor of shape (n_channels,); a selector's are 1 for kept, 0 for removed.
        was_cached: Whether the scores came from the cache.
        wall_time_s: Seconds that scoring, waiting for it, or reading it took.
    """

    kept: Kept
    scores: Scores
    was_cached: bool
    wall_time_s: float


def select_channels(
    method: Selector,
    context: ScoringContext,
    architecture: Mapping[str, int],
    cache: ScoreCache | None = None,
) -> Selection:
    """Choose the channels to keep, computing scores only when the cache does not have them.

    Args:
        architecture: Kept channels of groups; those that it does not name keep all.
    Raises:
        ArchitectureError: If a group is unknown, or keeps no channel or more than it has.
        ImportanceError: If the method breaks its contract; see `compute_scores` and `compute_selection`.
    """
    started = time.perf_counter()
    wanted = Architecture.complete(architecture, context.grouping)
    scores, was_cached = find_scores(method, context, wanted, cache)
    return Selection(keep_best(scores, wanted), scores, was_cached, time.perf_counter() - started)


def find_scores(
    method: Selector,
    context: ScoringContext,
    architecture: Mapping[str, int] | None = None,
    cache: ScoreCache | None = None,
) -> tuple[Scores, bool]:
    """Return a method's scores and whether they came from the cache.

    Args:
        architecture: Needed by selectors only, whose scores are one for kept and zero for removed channels.
    Raises:
        ArchitectureError: If a group of it is unknown, or keeps no channel or more than it has.
        ImportanceError: If a selector gets none, or the method breaks its contract.
    """
    if architecture is None and not isinstance(method, Scorer):
        raise ImportanceError(
            f"{type(method).__name__} chooses channels for an architecture, got none; "
            "try architecture=Architecture.uniform(grouping, 0.5)"
        )
    wanted = None if architecture is None else Architecture.complete(architecture, context.grouping)
    if cache is not None and context.workspace is None:
        context = dataclasses.replace(context, workspace=cache.folder)

    def compute() -> Scores:
        if isinstance(method, Scorer):
            return compute_scores(method, context)
        kept = compute_selection(method, context, wanted or {})
        return {
            group.name: torch.zeros(group.n_channels, dtype=torch.float64).index_fill_(
                0, torch.tensor(kept[group.name]), 1.0
            )
            for group in context.grouping.groups
        }

    if cache is None:
        return compute(), False
    chosen_for = None if isinstance(method, Scorer) else dict(wanted or {})
    return cache.get_or_compute(score_key(method, context, chosen_for), compute)
