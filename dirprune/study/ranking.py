"""The scores of a study's methods, known before its first trial, for architectures that follow from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dirprune.importance import ScoreCache, ScoringContext, create, find_scores
from dirprune.importance.base import Scores
from dirprune.importance.cache import score_key
from dirprune.study.space import SearchSpace


class MethodScores:
    """The scores of every method that a space may choose, with each of its options.

    Args:
        scores: By the method and its options, as `_name` writes them.
    """

    def __init__(self, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        self._scores = scores

    def scores_of(self, method: str, options: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
        """Return for each group a score for each channel, higher = keep."""
        return self._scores[_name(method, options)]

    def typical(self) -> Mapping[str, Sequence[float]]:
        """Return the scores of the first method."""
        return next(iter(self._scores.values()))


def obtain_ranking(space: SearchSpace, context: ScoringContext, cache: ScoreCache) -> MethodScores:
    """Return the scores that ranked architectures follow from.

    They come from the cache, or are computed here and found there by the trials.

    Args:
        space: What the study may choose.
        context: The dense network and the calibration images, as its trials have them.
        cache: Where scores are looked up and kept.
    """
    scores = {}
    for method, options in list_choices(space):
        found, _ = find_scores(create(method, options), context, cache=cache)
        scores[_name(method, options)] = _as_lists(found)
    return MethodScores(scores)


def recall_ranking(space: SearchSpace, context: ScoringContext, cache: ScoreCache) -> MethodScores | None:
    """Return what `obtain_ranking` would on any machine, if all of it is in the cache, else None."""
    scores = {}
    for method, options in list_choices(space):
        scorer = create(method, options)
        found = None if scorer.is_timed else cache.find(score_key(scorer, context))
        if found is None:
            return None
        scores[_name(method, options)] = _as_lists(found)
    return MethodScores(scores)


def _as_lists(scores: Scores) -> dict[str, list[float]]:
    return {group: values.tolist() for group, values in scores.items()}


def list_choices(space: SearchSpace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every method with every combination of its options."""
    for method, options in space.methods.items():
        for values in itertools.product(*options.values()):
            yield method, dict(zip(options, values, strict=True))


def _name(method: str, options: Mapping[str, Any]) -> str:
    return " ".join([method, *(f"{name}={value!r}" for name, value in sorted(options.items()))])
