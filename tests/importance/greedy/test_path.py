"""The path over all groups: its order, its architectures, and how it goes on after an interruption."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from dirprune.cost import CostModel
from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext, create
from dirprune.importance.cache import score_key
from dirprune.importance.coalitions.store import StoredValues
from dirprune.importance.greedy import Path, PathOptions, compute_path
from dirprune.importance.greedy.shrinking import Shrinking
from dirprune.importance.greedy.walk import compute_rate
from tests.importance.cases import make_context, score
from tests.importance.greedy.networks import two_sides
from tests.importance.simplex.planted import planted_case
from tests.networks_for_tests import Residual, SmallLeNet


def tenfold(architecture: Mapping[str, int]) -> float:
    """A left channel costs ten, a right one costs one."""
    return 10.0 * architecture["left"] + architecture["right"]


def evenly(architecture: Mapping[str, int]) -> float:
    return float(sum(architecture.values()))


def removals(path: Path) -> list[tuple[str, int]]:
    return [(step.group, step.channel) for step in path.steps]


def test_what_saves_more_goes_first_though_it_loses_more() -> None:
    # Removing left 1 loses 1 and saves 10; removing right 0 loses 0.25 and saves 1.
    context = two_sides([3, 1], [0.5, 2])
    assert removals(compute_path(context, cost=tenfold)) == [("left", 1), ("right", 0)]
    assert removals(compute_path(context, cost=evenly)) == [("right", 0), ("left", 1)]


def test_path_by_curvature_weighs_losses_and_savings_too() -> None:
    context = two_sides([3, 1], [0.5, 2])
    options = PathOptions(search="curvature", step=0.01)
    assert removals(compute_path(context, options, cost=tenfold)) == [("left", 1), ("right", 0)]
    path = compute_path(context, options, cost=evenly)
    assert removals(path) == [("right", 0), ("left", 1)]
    assert [step.value for step in path.steps] == pytest.approx([-0.25, -1.25])


def test_steps_tell_value_cost_and_architecture() -> None:
    path = compute_path(two_sides([3, 1], [0.5, 2]), cost=tenfold)
    assert path.full_cost == 22
    assert [step.cost for step in path.steps] == [12, 11]
    assert [step.value for step in path.steps] == pytest.approx([-1, -1.25])
    assert [str(step.architecture) for step in path.steps] == ["1-2", "1-1"]


def test_there_is_an_architecture_for_every_budget() -> None:
    path = compute_path(two_sides([3, 1], [0.5, 2]), cost=tenfold)
    found = {budget: str(path.architecture_within(budget)) for budget in (30, 22, 21.9, 12, 11.5, 11)}
    assert found == {30: "2-2", 22: "2-2", 21.9: "1-2", 12: "1-2", 11.5: "1-1", 11: "1-1"}
    assert path.kept_within(12) == {"left": [0], "right": [0, 1]}
    with pytest.raises(ImportanceError, match=r"budget must be at least 11, .* got 10"):
        path.architecture_within(10)


def test_a_path_is_found_again_by_its_scores() -> None:
    path = compute_path(two_sides([3, 1], [0.5, 2]), cost=tenfold)
    again = Path.from_scores(path.scores(), tenfold)
    assert (again.full, again.full_cost) == (path.full, path.full_cost)
    assert removals(again) == removals(path)
    assert [step.cost for step in again.steps] == [step.cost for step in path.steps]
    dead = {
        "left": torch.tensor([-1.0, -1.0]),
        "right": torch.tensor([2.0, 0.0]),
    }  # put last by compute_scores
    assert removals(Path.from_scores(dead, tenfold)) == [("left", 0), ("right", 1)]


@pytest.mark.parametrize("search", ["exact", "curvature"])
def test_costs_are_those_that_the_options_name(search: str) -> None:
    context = make_context()
    model = CostModel(context.network, context.grouping, context.calibration.inputs[:2])
    for cost in ("macs", "parameters"):
        path = compute_path(context, PathOptions(cost=cost, search=search))
        for step in path.steps:
            assert step.cost == model.costs(step.architecture).as_dict()[cost]


@pytest.mark.parametrize("kind", [SmallLeNet, Residual])
@pytest.mark.parametrize("search", ["exact", "curvature"])
@pytest.mark.parametrize("step", [0.01, 0.5])
def test_path_is_nested_and_ends_with_one_channel_each(
    step: float, search: str, kind: type[torch.nn.Module]
) -> None:
    context = make_context(kind)
    path = compute_path(context, PathOptions(step=step, search=search))
    n_spare = sum(n - 1 for n in context.grouping.n_channels.values())
    assert len(set(removals(path))) == len(path.steps) == n_spare
    assert set(path.steps[-1].architecture.values()) == {1}
    assert all(len(kept) == 1 for kept in path.kept_within(path.steps[-1].cost).values())
    for group, values in path.scores().items():
        assert len(values.unique()) == path.full[group]


def test_path_by_curvature_is_near_the_exact_one_where_outputs_are_linear_in_the_channels() -> None:
    sides, planted = two_sides([3, 1, 2, 0.1], [0.5, 4, 2.5]), planted_case()
    apart, together = (
        [
            compute_path(context, PathOptions(search=search, n_examples=500, step=0.01, cost="parameters"))
            for search in ("exact", "curvature")
        ]
        for context in (sides, planted)
    )
    assert removals(apart[0]) == removals(apart[1])
    ((exact, by_curvature),) = zip(*(path.scores().values() for path in together), strict=True)
    assert spearmanr(exact, by_curvature).statistic > 0.9


def test_path_by_curvature_is_the_same_again() -> None:
    paths = [compute_path(make_context(Residual), PathOptions(search="curvature")) for _ in range(2)]
    assert paths[0] == paths[1]


def test_later_removal_scores_higher_and_the_last_of_a_group_highest() -> None:
    scores = score("greedy-path", two_sides([3, 1, 2], [0.5, 4]))
    assert scores["left"].argsort().tolist() == [1, 2, 0]
    assert scores["right"].argsort().tolist() == [0, 1]
    assert scores["left"][0] == scores["right"][1] == 3


def test_lazy_path_is_the_full_one_where_channels_add_up() -> None:
    context = two_sides([3, 1, 2, 0.1], [0.5, 4, 2.5])
    paths = [compute_path(context, PathOptions(lazy=lazy, slack=0)) for lazy in (True, False)]
    assert removals(paths[0]) == removals(paths[1])


def record_computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Return a list that grows by every coalition that is computed and stored."""
    computed: list[tuple[str, bytes]] = []
    append = StoredValues._append

    def record(self: StoredValues, keys: list[bytes], values: Any) -> None:
        computed.extend((self.lines.path.name, key) for key in keys)
        append(self, keys, values)

    monkeypatch.setattr(StoredValues, "_append", record)
    return computed


def interrupt_after(n_calls: int) -> Any:
    told = []

    def progress(what: str, n_done: int, n_total: int) -> None:
        told.append(what)
        if len(told) == n_calls:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("n_calls", [3, 20])
def test_interrupted_path_goes_on_and_evaluates_nothing_twice(
    n_calls: int, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = compute_path(dataclasses.replace(make_context(), workspace=tmp_path / "whole"))
    computed = record_computed(monkeypatch)
    context: ScoringContext = dataclasses.replace(make_context(), workspace=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        compute_path(dataclasses.replace(context, progress=interrupt_after(n_calls)))
    n_before = len(computed)
    assert n_before > 0
    found = compute_path(context)
    assert len(computed) > n_before
    assert len(set(computed)) == len(computed)
    assert removals(found) == removals(expected)
    compute_path(context)
    assert len(set(computed)) == len(computed)


@pytest.mark.parametrize("n_lost", [0, 40])
def test_interrupted_path_by_curvature_goes_on_from_its_last_cut(
    n_lost: int, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PathOptions(search="curvature", step=0.2)
    context = dataclasses.replace(make_context(Residual), workspace=tmp_path)
    looks = count_looks(monkeypatch)
    expected = compute_path(dataclasses.replace(context, workspace=None), options)
    n_looks = len(looks)
    assert n_looks > 4
    with pytest.raises(KeyboardInterrupt):
        compute_path(dataclasses.replace(context, progress=interrupt_after(3)), options)
    (path,) = (tmp_path / "under-way").iterdir()
    path.write_bytes(path.read_bytes()[: -n_lost or None])  # as a kill may leave it
    looks.clear()
    assert compute_path(context, options) == expected
    assert len(looks) == n_looks - (3 if n_lost == 0 else 2)
    looks.clear()
    assert compute_path(context, options) == expected
    assert looks == []
    other = dataclasses.replace(options, step=0.5)
    assert compute_path(context, other) != expected
    assert looks != []


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every look at a network's curvature."""
    looks: list[int] = []
    look = Shrinking.look

    def count(self: Shrinking) -> Any:
        looks.append(len(looks))
        return look(self)

    monkeypatch.setattr(Shrinking, "look", count)
    return looks


def test_progress_counts_removed_channels() -> None:
    told: list[tuple[str, int, int]] = []
    context = dataclasses.replace(
        two_sides([3, 1], [0.5, 2]), progress=lambda what, done, total: told.append((what, done, total))
    )
    compute_path(context)
    assert told[-1] == ("greedy-path", 2, 2)
    removed = [done for what, done, _ in told if what == "greedy-path"]
    assert len(removed) > 1
    assert removed == sorted(removed)


def test_network_without_groups_has_no_path() -> None:
    context = make_context()
    empty = dataclasses.replace(context, grouping=dataclasses.replace(context.grouping, groups=()))
    assert score("greedy-path", empty) == {}
    assert compute_path(empty).steps == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost": "mac"}, "cost must be 'macs', 'parameters' or 'latency', got 'mac'"),
        ({"slack": -0.1}, "slack must be a number of at least 0, got -0.1"),
        ({"slack": "inf"}, "slack must be a number of at least 0, got inf"),
        ({"step": 2}, r"step must be in \(0, 1\], got 2"),
        ({"n_examples": 0}, "n_examples must be at least 1, got 0"),
        ({"value": "acc"}, "value must be 'loss' or 'accuracy', got 'acc'"),
    ],
)
def test_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImportanceError, match=message):
        create("greedy-path", options)


def test_scores_are_the_path() -> None:
    context = make_context()
    scores = score("greedy-path", context)
    for group, values in compute_path(context).scores().items():
        assert torch.equal(scores[group], values)


def test_a_path_by_latency_never_gets_slower() -> None:
    context = make_context()
    path = compute_path(context, PathOptions(cost="latency", n_examples=16, step=0.5))
    costs = [path.full_cost, *(step.cost for step in path.steps)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(costs))
    assert costs[-1] > 0


def test_channels_that_go_at_once_with_the_cheapest_obey_the_slack() -> None:
    # What removals lose by themselves: of the left 1, 2, 3, ..., 8; right 0 loses 1.5.
    context = two_sides([n**0.5 for n in range(1, 9)], [1.5**0.5, 30])
    found = {
        step: removals(compute_path(context, PathOptions(step=step), cost=evenly)) for step in (0.01, 0.5)
    }
    assert found[0.5][:4] == [("left", 0), ("right", 0), ("left", 1), ("left", 2)]
    assert found[0.5] == found[0.01]
    loose = compute_path(context, PathOptions(step=0.5, slack=0.4), cost=evenly)
    assert removals(loose)[:4] == [("left", 0), ("left", 1), ("right", 0), ("left", 2)]


def test_where_removing_helps_the_group_that_saves_more_goes_first() -> None:
    assert (
        compute_rate(-1.0, 10.0)
        < compute_rate(-1.0, 2.0)
        < 0
        < compute_rate(1.0, 10.0)
        < compute_rate(1.0, 2.0)
    )
    assert compute_rate(compute_rate(-3.0, 4.0), 1 / 4.0) == -3.0
    assert compute_rate(compute_rate(3.0, 4.0), 1 / 4.0) == 3.0


def test_paths_by_latency_of_other_devices_or_threads_have_other_keys() -> None:
    context = make_context()
    by_latency, by_macs = create("greedy-path", {"cost": "latency"}), create("greedy-path")
    n_threads = torch.get_num_threads()
    keys = [score_key(method, context) for method in (by_latency, by_macs)]
    try:
        torch.set_num_threads(n_threads + 1)
        later = [score_key(method, context) for method in (by_latency, by_macs)]
    finally:
        torch.set_num_threads(n_threads)
    assert later[0] != keys[0]
    assert later[1] == keys[1]
