"""Groups opened one after another have the values that each has alone, and share the work before them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from dirprune.importance.coalitions import Opener, open_values, opening
from dirprune.importance.coalitions.engines import ContributionValues, PrefixValues
from dirprune.importance.coalitions.prefix import Handover, Prefix
from dirprune.importance.coalitions.tiles import TiledValues
from dirprune.importance.shapley.methods import ShapleyPartial
from tests.importance.cases import make_context
from tests.importance.coalitions.test_engines import draw_coalitions, make_classification
from tests.importance.coalitions.test_hard_networks import AddsInPlace
from tests.networks_for_tests import CASES, SmallLeNet, build_case


@pytest.mark.parametrize("name", CASES)
def test_groups_opened_in_turn_have_the_values_that_each_has_alone(name: str) -> None:
    network, batch = build_case(name)
    context = make_classification(network, tuple(batch.shape[1:]))
    opener = Opener(context)
    for group in context.grouping.groups:
        coalitions = draw_coalitions(9, group.n_channels)
        alone, in_turn = open_values(context, group.name), opener.open(group.name)
        assert type(in_turn) is type(alone)
        np.testing.assert_allclose(in_turn.evaluate(coalitions), alone.evaluate(coalitions), rtol=1e-6)


def test_memory_in_which_a_network_writes_spoils_no_other_group() -> None:
    torch.manual_seed(0)
    context = make_classification(AddsInPlace(), (2, 5, 5))
    opener = Opener(context)
    for group in [*context.grouping.groups, *context.grouping.groups]:
        coalitions = draw_coalitions(9, group.n_channels)
        expected = open_values(context, group.name).evaluate(coalitions)
        np.testing.assert_allclose(opener.open(group.name).evaluate(coalitions), expected, rtol=1e-6)


def test_the_network_is_traced_once_and_every_layer_before_the_groups_is_run_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = make_context(SmallLeNet, n_examples=48)
    n_traced, rows = 0, dict.fromkeys(("conv1", "conv2", "linear1"), 0)
    trace, run_node = opening.trace, fx.Interpreter.run_node

    def count_traces(network: torch.nn.Module) -> fx.GraphModule | None:
        nonlocal n_traced
        n_traced += 1
        return trace(network)

    def count_rows(self: fx.Interpreter, node: fx.Node) -> object:
        result = run_node(self, node)
        if node.target in rows:
            rows[str(node.target)] += len(result)
        return result

    monkeypatch.setattr(opening, "trace", count_traces)
    monkeypatch.setattr(fx.Interpreter, "run_node", count_rows)
    ShapleyPartial().score(context)
    assert n_traced == 1
    n_tried = 3 * (opening.N_CHECKED * 2 + 2)  # what trying three engines takes at most, example by example
    assert all(48 <= n_rows <= 48 + n_tried for n_rows in rows.values()), rows


def test_what_was_handed_over_wrongly_is_found_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = Handover.collect

    def spoil(self: Handover, nodes: tuple[fx.Node, ...], start: int, values: list[Tensor]) -> None:
        collect(self, nodes, start, [value * 2 for value in values])

    monkeypatch.setattr(Handover, "collect", spoil)
    context = make_context(SmallLeNet)
    opener = Opener(context)
    for group in context.grouping.groups:
        coalitions = draw_coalitions(9, group.n_channels)
        values = opener.open(group.name)
        assert isinstance(values, ContributionValues)
        assert not values.known
        expected = open_values(context, group.name).evaluate(coalitions)
        np.testing.assert_allclose(values.evaluate(coalitions), expected, rtol=1e-6)
    assert opener.handover is not None
    assert opener.handover.known


def test_nothing_is_handed_over_that_is_cut_or_takes_more_memory_than_allowed() -> None:
    context = make_context(SmallLeNet)
    opener = Opener(context)
    opener.open("conv1", {"conv2": [0, 1]}).evaluate(draw_coalitions(3, 4))
    assert opener.handover is not None
    assert not opener.handover.known
    opener.handover.n_bytes = 10
    opener.open("conv1").evaluate(draw_coalitions(3, 4))
    assert not opener.handover.known
    assert Opener(dataclasses.replace(context, memory_mb=1)).handover.n_bytes == 1 << 17  # type: ignore[union-attr]


def test_examples_out_of_order_or_of_another_group_are_never_taken_for_all() -> None:
    graph = fx.Graph()
    first, second = (graph.placeholder(name) for name in ("first", "second"))
    rows = torch.arange(6.0).reshape(6, 1)
    handover = Handover(6, 1000)
    handover.collect((first,), 0, [rows[:3]])
    handover.collect((first,), 4, [rows[4:]])
    handover.collect((first,), 3, [rows[3:]])
    assert not handover.known
    handover.collect((first,), 0, [rows[:3]])
    handover.collect((second,), 3, [rows[3:]])
    assert not handover.known
    handover.collect((second,), 0, [rows[:4]])
    handover.collect((second,), 4, [rows[4:]])
    assert torch.equal(handover.known[second], rows)


def test_a_prefix_computes_nothing_that_is_known() -> None:
    context = make_context(SmallLeNet)
    traced = opening.trace(context.network)
    assert traced is not None
    nodes = {str(node.target): node for node in traced.graph.nodes if node.op == "call_module"}
    inputs, _ = context.load(slice(0, 5))
    (middle,) = Prefix(traced, [nodes["conv2"]])(inputs)
    whole, found = Prefix(traced, [nodes["linear2"]]), Prefix(traced, [nodes["linear2"]])
    expected = whole(inputs)[0]
    assert torch.equal(found(inputs.fill_(float("nan")), {nodes["conv2"]: middle})[0], expected)
    assert found.largest < whole.largest


def test_engines_are_checked_with_no_more_examples_at_once_than_the_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = make_context(SmallLeNet, n_examples=48)
    roomy = open_values(context, "conv1")
    assert isinstance(roomy, ContributionValues)
    whole = 4 * roomy.shared * 2 * opening.N_CHECKED
    make, sizes, n_rows = opening._open_contributions, [], []
    prepare, run = ContributionValues.prepare, ContributionValues.run

    def make_tight(*arguments: object) -> object:
        values = make(*arguments)  # type: ignore[arg-type]
        values.memory = whole // 4  # type: ignore[union-attr]
        values.largest = values.memory // 16  # type: ignore[union-attr]
        return values

    def note_sizes(self: ContributionValues, entering: list[Tensor]) -> list[Tensor]:
        sizes.append(len(entering[0]))
        return prepare(self, entering)

    def note_rows(self: ContributionValues, tensors: list[Tensor], rows: Tensor) -> Tensor:
        n_rows.append(len(rows))
        return run(self, tensors, rows)

    monkeypatch.setattr(opening, "_open_contributions", make_tight)
    monkeypatch.setattr(ContributionValues, "prepare", note_sizes)
    monkeypatch.setattr(ContributionValues, "run", note_rows)
    assert isinstance(open_values(context, "conv1"), ContributionValues)
    assert max(sizes) == max(n_rows) == 2


def test_contributions_that_do_not_fit_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context(SmallLeNet, n_examples=48)
    n_bytes = open_values(context, "conv1").shared  # type: ignore[attr-defined]

    def refuse(self: ContributionValues, entering: list[Tensor]) -> Tensor:
        raise AssertionError("contributions were computed")

    def allow_less(self: TiledValues, n_bytes_of_one: int) -> bool:
        return n_bytes_of_one < n_bytes

    monkeypatch.setattr(ContributionValues, "_take_apart", refuse)
    monkeypatch.setattr(TiledValues, "fits", allow_less)
    assert isinstance(open_values(context, "conv1"), PrefixValues)
