"""What `dirprune rank` finds out about the channels of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dirprune.cli.greedy_paths import PathPoint, measure_path, measure_point
from dirprune.cli.options import MethodOptions
from dirprune.cli.printing import ScoringProgress, kept_on_interrupt
from dirprune.cli.subjects import Subject
from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.identity import digest
from dirprune.importance import ScoreCache, Scorer, ScoringContext, find_scores
from dirprune.importance.cache import score_key
from dirprune.importance.greedy import Path
from dirprune.importance.greedy.path import GreedyPath, find_cost
from dirprune.importance.shapley import ShapleyScorer


@dataclass(frozen=True)
class Ranking:
    """Scores of channels, and what comes with them.

    Attributes:
        method: That of the scores.
        scores: For each group a tensor of shape (n_channels,); higher means keep.
        half_widths: Of the scores' 95% intervals, likewise, for the groups for which they are known.
        of_others: The scores of other methods.
        was_cached: Whether the scores had been computed before.
        has_new_intervals: Whether the scores had, and their intervals had not.
        lacks_intervals: Whether the method estimates and does not know its error.
        path: Networks on the path of a method that has one.
        cost: What that path saves; empty without one.
        budget: What was asked for, of that cost.
        within_budget: The network of the path within it.
    """

    method: str
    scores: Mapping[str, torch.Tensor]
    half_widths: Mapping[str, torch.Tensor]
    of_others: Mapping[str, Mapping[str, torch.Tensor]]
    was_cached: bool
    has_new_intervals: bool
    lacks_intervals: bool
    path: Sequence[PathPoint] = ()
    cost: str = ""
    budget: float | None = None
    within_budget: PathPoint | None = None


def compute_ranking(
    scorer: Scorer,
    scoring: MethodOptions,
    compared: Mapping[str, Scorer],
    budget: float | None,
    subject: Subject,
    grouping: Grouping,
) -> Ranking:
    """Score the channels of a network by a method and those that it is compared with, with progress.

    Args:
        scorer: The method.
        scoring: Its name, its cache and its memory.
        compared: The others by name.
        budget: Of a path: the cost of the network that is asked for.
        subject: The network and its data.
        grouping: Its channel groups.

    Raises:
        ConfigurationError: If there is no network within the budget.
    """
    assert scoring.method is not None
    cache = ScoreCache(scoring.cache)
    scored = [(scoring.method, scorer)] * (2 if isinstance(scorer, ShapleyScorer) else 1)  # and its intervals
    pieces = [(name, method.is_kept_in_parts) for name, method in [*scored, *compared.items()]]
    with kept_on_interrupt(cache, pieces), ScoringProgress(grouping.names) as progress:
        context = ScoringContext(
            subject.network,
            grouping,
            subject.roles.calibration,
            subject.roles.normalise,
            subject.task,
            subject.seed,
            subject.device,
            memory_mb=scoring.memory_mb,
            progress=progress,
        )
        cost_of = None
        if isinstance(scorer, GreedyPath):
            cost_of = find_cost(dataclasses.replace(context, workspace=cache.folder), scorer.options)
            check_budget(budget, cost_of(dict.fromkeys(grouping.names, 1)))
        found, was_cached = find_scores(scorer, context, cache=cache)
        scores = {name: found[name] for name in grouping.names}
        half_widths, are_known = find_half_widths(scorer, context, cache)
        ranking = Ranking(
            scoring.method,
            scores,
            half_widths,
            {name: find_scores(other, context, cache=cache)[0] for name, other in compared.items()},
            was_cached,
            has_new_intervals=was_cached and not are_known,
            lacks_intervals=isinstance(scorer, ShapleyScorer) and not half_widths,
        )
        if cost_of is None:
            return ranking
        removals = Path.from_scores(scores, cost_of)
        return dataclasses.replace(
            ranking,
            path=measure_path(subject, grouping, removals),
            cost=scorer.options.cost,
            budget=budget,
            within_budget=None if budget is None else measure_point(subject, grouping, removals, budget),
        )


def check_budget(budget: float | None, lowest: float) -> None:
    """Refuse a budget within which there is no network, before anything is scored.

    Raises:
        ConfigurationError: If it is below what the smallest network costs.
    """
    if budget is not None and budget < lowest:
        raise ConfigurationError(
            f"--budget must be at least {lowest:,.10g}, what one channel in each group costs, "
            f"got {budget:,.10g}"
        )


@torch.no_grad()
def find_half_widths(
    scorer: Scorer, context: ScoringContext, cache: ScoreCache
) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the half widths of the 95% intervals of scores, and whether they were known.

    Args:
        scorer: The one that was scored with; what that found beside scores is taken as it is.
        context: That of the scoring.
        cache: Likewise; half widths are kept there as well.
    Returns:
        Shape (n_channels,), of the groups for which the method has them.
    """
    if not isinstance(scorer, ShapleyScorer):
        return {}, True

    def compute() -> dict[str, torch.Tensor]:
        estimates = scorer.estimates
        if estimates is None:
            estimates = scorer.estimate(dataclasses.replace(context, workspace=cache.folder))
        return {
            name: torch.from_numpy(found.half_widths)
            for name, found in estimates.items()
            if found.half_widths is not None
        }

    return cache.get_or_compute(digest({"half_widths_of": score_key(scorer, context)}), compute)
