"""The scores that ranked architectures follow from are those that trials find in the cache."""

from __future__ import annotations

import pytest
import torch

from dirprune.importance import ScoreCache, create, find_scores
from dirprune.importance.cache import score_key
from dirprune.study.ranking import list_choices, obtain_ranking, recall_ranking
from dirprune.study.space import SearchSpace
from tests.importance.simplex.planted import planted_case

SPACE = SearchSpace(methods={"magnitude": {"norm": ("l1", "l2")}, "taylor": {}}, architectures="ranked")


def test_every_method_is_scored_once_with_each_of_its_options_and_found_again_by_trials(tmp_path):
    context, cache = planted_case(), ScoreCache(tmp_path)
    ranking = obtain_ranking(SPACE, context, cache)
    choices = list(list_choices(SPACE))
    assert choices == [("magnitude", {"norm": "l1"}), ("magnitude", {"norm": "l2"}), ("taylor", {})]
    for method, options in choices:
        scores, was_cached = find_scores(create(method, options), context, cache=cache)
        assert was_cached
        known = ranking.scores_of(method, options)
        assert {name: values.tolist() for name, values in scores.items()} == known
    assert ranking.scores_of(*choices[0]) != ranking.scores_of(*choices[2])
    assert ranking.typical() == ranking.scores_of(*choices[0])


def test_a_ranking_is_recalled_when_all_of_it_is_kept(tmp_path):
    context, cache = planted_case(), ScoreCache(tmp_path)
    choices = list(list_choices(SPACE))
    for method, options in choices:
        assert recall_ranking(SPACE, context, cache) is None
        find_scores(create(method, options), context, cache=cache)
    recalled, obtained = recall_ranking(SPACE, context, cache), obtain_ranking(SPACE, context, cache)
    for choice in choices:
        assert recalled.scores_of(*choice) == obtained.scores_of(*choice)


@pytest.mark.parametrize(("cost", "is_recalled"), [("macs", True), ("latency", False)])
def test_scores_that_a_clock_told_are_not_recalled_for_other_machines(cost, is_recalled, tmp_path):
    context, cache = planted_case(), ScoreCache(tmp_path)
    kept = {group.name: torch.arange(group.n_channels) for group in context.grouping.groups}
    cache.get_or_compute(score_key(create("greedy-path", {"cost": cost}), context), lambda: kept)
    space = SearchSpace(methods={"greedy-path": {"cost": (cost,)}}, architectures="ranked")
    assert (recall_ranking(space, context, cache) is not None) is is_recalled
