"""The fast ways of computing coalition values give what masking the whole network gives."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.coalitions.engines import ContributionValues, PrefixValues
from dirprune.importance.coalitions.judge import Judge
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.importance.coalitions.prefix import Prefix
from dirprune.importance.coalitions.tiles import TiledValues
from dirprune.importance.parts import Shortage
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.importance.cases import identity, make_context, make_split, score
from tests.networks_for_tests import CASES, Residual, SmallLeNet, build_case

N_EXAMPLES = 13
LOSS_TOLERANCE = 2e-6
"""Relative: some tens of roundings of float32."""


def make_classification(network: nn.Module, shape: tuple[int, ...], seed: int = 0) -> ScoringContext:
    """Return a context with random inputs, and classes of which the network gets about half right."""
    generator = torch.Generator().manual_seed(seed)
    network = network.eval()
    inputs = torch.randn(N_EXAMPLES, *shape, generator=generator)
    with torch.no_grad():
        outputs = network(inputs)
    if outputs.dim() == 2:
        targets = outputs.argmax(1)
        targets[::2] = torch.randint(0, outputs.shape[1], targets[::2].shape, generator=generator)
        task = make_task()
    else:
        targets, task = torch.randn(outputs.shape, generator=generator), make_task("mse", "mse")
    grouping = find_groups(network, inputs[:2])
    return ScoringContext(network, grouping, make_split(inputs, targets), identity, task)


def draw_coalitions(n_coalitions: int, n_channels: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    coalitions = rng.random((n_coalitions, n_channels)) < rng.random((n_coalitions, 1))
    coalitions[0], coalitions[1] = False, True
    return coalitions


def assert_equals_masking(context: ScoringContext, group: str, kept: dict[str, list[int]]) -> CoalitionValues:
    coalitions = draw_coalitions(12, context.grouping[group].n_channels)
    is_classification = context.task.loss_identity == {"name": "cross_entropy"}
    for value in ("loss", "accuracy") if is_classification else ("loss",):
        fast = open_values(context, group, kept, value=value)
        slow = MaskedValues(context, group, kept, Judge(context.task, value))
        expected = slow.evaluate(coalitions)
        if value == "accuracy":
            np.testing.assert_array_equal(fast.evaluate(coalitions), expected)
        else:
            np.testing.assert_allclose(fast.evaluate(coalitions), expected, rtol=LOSS_TOLERANCE, atol=0)
    if is_classification:
        assert_same_predictions(fast, slow, context.load(slice(None))[0], torch.from_numpy(coalitions))
    return fast


def assert_same_predictions(
    fast: CoalitionValues, slow: MaskedValues, inputs: Tensor, coalitions: Tensor
) -> None:
    """Check the class of every example in every coalition, where rounding does not decide between two."""
    assert isinstance(fast, (TiledValues, MaskedValues))
    found, expected = (values.compute_outputs(inputs.clone(), coalitions) for values in (fast, slow))
    best = expected.topk(2, dim=2).values
    is_clear = best[..., 0] - best[..., 1] > 1e-5 * expected.abs().amax(2)
    assert is_clear.float().mean() > 0.5
    assert torch.equal(found.argmax(2)[is_clear], expected.argmax(2)[is_clear])


@pytest.mark.parametrize("name", CASES)
def test_values_equal_masking_the_whole_network(name: str) -> None:
    network, batch = build_case(name)
    context = make_classification(network, tuple(batch.shape[1:]))
    for group in context.grouping.groups:
        others = {g.name: list(range(0, g.n_channels, 2)) for g in context.grouping.groups if g != group}
        for kept in ({}, others):
            assert not isinstance(assert_equals_masking(context, group.name, kept), MaskedValues)


class Block(nn.Module):
    """A residual block, or a plain one."""

    def __init__(self, width: int, inner: int, has_norm: bool, is_residual: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, inner, 3, padding=1, bias=not has_norm)
        self.norm = nn.BatchNorm2d(inner) if has_norm else nn.Identity()
        self.second = nn.Conv2d(inner, width, 3, padding=1)
        self.last_norm = nn.BatchNorm2d(width) if has_norm else nn.Dropout()
        self.is_residual = is_residual

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.last_norm(self.second(F.relu(self.norm(self.first(values)))))
        return F.relu(values + hidden if self.is_residual else hidden)


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    """Draw networks of convolutions, pooling, batch norm in both orders, residual blocks and a linear end."""
    width, size = draw(st.integers(2, 5)), 12
    layers: list[nn.Module] = [nn.Conv2d(2, width, 3, padding=1)]
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["pool", "odd pool", "norm", "block", "conv", "relu"]))
        if kind in ("pool", "odd pool") and size >= 6:
            kernel = 2 if kind == "pool" else 5
            layers.append(nn.MaxPool2d(kernel))
            size //= kernel
        elif kind == "norm":
            layers += [nn.ReLU(), nn.BatchNorm2d(width)]
        elif kind == "block":
            layers.append(Block(width, draw(st.integers(2, 6)), draw(st.booleans()), draw(st.booleans())))
        elif kind == "conv":
            wider = draw(st.integers(2, 6))
            stride = draw(st.sampled_from([1, 2]))
            layers += [nn.Conv2d(width, wider, 3, stride=stride, padding=1), nn.BatchNorm2d(wider)]
            width, size = wider, -(-size // stride)
        layers.append(nn.ReLU(inplace=kind == "conv" and draw(st.booleans())))
    if draw(st.booleans()):
        layers.append(nn.AdaptiveAvgPool2d(1))
        size = 1
    layers.append(nn.Flatten())
    features = width * size * size
    for _ in range(draw(st.integers(0, 2))):
        layers.append(nn.Linear(features, 6))
        layers += [nn.ReLU()] if draw(st.booleans()) else [nn.BatchNorm1d(6)] if draw(st.booleans()) else []
        features = 6
    return nn.Sequential(*layers, nn.Linear(features, 3))


@settings(max_examples=50, deadline=None)
@given(networks(), st.integers(0, 1000))
def test_values_equal_masking_for_random_networks(network: nn.Sequential, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.normal_(module.running_mean, std=0.5)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    context = make_classification(network, (2, 12, 12), seed)
    for group in context.grouping.groups:
        others = {g.name: list(range(1, g.n_channels)) for g in context.grouping.groups if g != group}
        assert_equals_masking(context, group.name, others if seed % 2 else {})


def test_a_chain_takes_contributions_and_a_coupled_group_a_cached_prefix() -> None:
    lenet = make_context(SmallLeNet)
    kinds = {group.name: open_values(lenet, group.name) for group in lenet.grouping.groups}
    assert all(isinstance(values, ContributionValues) for values in kinds.values())
    assert kinds["conv1"].rest.matrix is not None  # type: ignore[attr-defined]
    network, batch = build_case("residual")
    context = make_classification(network, tuple(batch.shape[1:]))
    assert isinstance(open_values(context, "stem"), PrefixValues)
    inner = open_values(context, "conv_a1")
    assert isinstance(inner, ContributionValues)
    assert len(inner.rest.added) == 1  # the shortcut is a part of the constant


class Looping(nn.Module):
    """Depends on its input's values, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 2)

    def forward(self, values: Tensor) -> Tensor:
        hidden = torch.relu(self.first(values))
        return self.second(hidden * 2 if bool(values.sum() > -1e9) else hidden)


class RemembersBatchSize(Looping):
    """Uses the size of the batch before the group for a reshape behind it."""

    def forward(self, values: Tensor) -> Tensor:
        n_examples = values.size(0)
        return self.second(torch.relu(self.first(values)).view(n_examples, 5).view(n_examples, -1))


class FlattensByHand(SmallLeNet):
    """Flattens in the way of many tutorials."""

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn1(F.relu(F.max_pool2d(self.conv1(images), 2)))
        hidden = self.bn2(F.relu(F.max_pool2d(self.conv2(hidden), 2)))
        return self.linear2(F.relu(self.linear1(hidden.view(hidden.size(0), -1))))


@pytest.mark.parametrize(
    ("kind", "shape", "n_masked"),
    [(Looping, (4,), 1), (RemembersBatchSize, (4,), 0), (FlattensByHand, (1, 14, 14), 0)],
)
def test_a_network_that_does_not_allow_more_falls_back_and_stays_right(
    kind: type[nn.Module], shape: tuple[int, ...], n_masked: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        context = make_classification(kind(), shape)
    found = [assert_equals_masking(context, group.name, {}) for group in context.grouping.groups]
    assert sum(isinstance(values, MaskedValues) for values in found) == n_masked


def test_an_engine_that_computes_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContributionValues, "run", lambda self, tensors, rows: 0 * rows[:, :1, None])
    context = make_context(SmallLeNet)
    assert isinstance(open_values(context, "conv1"), PrefixValues)
    monkeypatch.setattr(PrefixValues, "run", lambda self, tensors, rows: 0 * rows[:, :1, None])
    assert isinstance(open_values(context, "conv1"), MaskedValues)


@pytest.mark.parametrize("engine", [ContributionValues, PrefixValues])
def test_memory_bounds_what_is_computed_at_once_and_changes_no_value(engine: type[TiledValues]) -> None:
    network, batch = build_case("residual")
    context = make_classification(network, tuple(batch.shape[1:]))
    group = "conv_a1" if engine is ContributionValues else "stem"
    roomy, tight = open_values(context, group), open_values(dataclasses.replace(context, memory_mb=1), group)
    assert isinstance(roomy, engine)
    assert isinstance(tight, engine)
    tight.memory = tight.shared * 5
    tight.tile_bytes = tight.largest * 2
    assert tight.chunk_size < roomy.chunk_size
    coalitions = draw_coalitions(9, roomy.n_channels)
    np.testing.assert_allclose(tight.evaluate(coalitions), roomy.evaluate(coalitions), rtol=1e-6)
    held = sum(prepared.n_bytes for prepared in tight._kept.values())
    assert held <= tight.memory // 2
    roomy.evaluate(coalitions)
    assert tight.repeated_s > 0  # what is not held is prepared for each evaluation
    assert roomy.repeated_s == roomy.shared_s == 0


@pytest.mark.parametrize(("group", "n_rows"), [("stem", 4), ("conv_a1", 4), ("conv_b1", 32)])
def test_few_coalitions_fill_a_tile_where_convolutions_follow(group: str, n_rows: int) -> None:
    network, batch = build_case("residual")
    values = open_values(make_classification(network, tuple(batch.shape[1:])), group)
    assert isinstance(values, TiledValues)
    values.tile_bytes = 32 * values.largest
    assert values.chunk_size * n_rows == 32


def test_no_more_coalitions_are_on_the_device_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context(SmallLeNet)
    coalitions = draw_coalitions(50, 4)
    expected = open_values(context, "conv1").evaluate(coalitions)
    values = open_values(context, "conv1")
    assert isinstance(values, TiledValues)
    values.memory = 8 * 5 * 4 * 20  # an eighth of which holds 20 coalitions of 4 channels
    taken: list[int] = []
    go_through = TiledValues._go_through_part

    def record(self: TiledValues, part: Tensor) -> Any:
        taken.append(len(part))
        return go_through(self, part)

    monkeypatch.setattr(TiledValues, "_go_through_part", record)
    np.testing.assert_allclose(values.evaluate(coalitions), expected, rtol=1e-6)
    assert taken == [20, 20, 10]


@pytest.mark.parametrize("group", ["conv1", "conv2", "linear1"])
def test_a_coalition_has_the_same_value_alone_and_among_others(group: str) -> None:
    values = open_values(make_context(SmallLeNet), group)
    assert isinstance(values, ContributionValues)
    coalitions = draw_coalitions(12, values.n_channels)
    together = values.evaluate(coalitions)
    alone = [values.evaluate(coalitions[place : place + 1])[0] for place in range(12)]
    assert together.tolist() == alone


def test_outputs_are_not_overwritten_by_later_ones() -> None:
    context = make_context(SmallLeNet)
    values = open_values(context, "conv2")
    assert isinstance(values, ContributionValues)
    inputs, _ = context.load(slice(0, 8))
    first = values.compute_outputs(inputs, torch.ones(3, values.n_channels))
    before = first.clone()
    values.compute_outputs(inputs, torch.zeros(3, values.n_channels))
    assert torch.equal(first, before)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("of numpy")])
def test_out_of_memory_goes_on_in_smaller_batches_and_says_so_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = make_context(SmallLeNet)
    coalitions = draw_coalitions(9, context.grouping["conv1"].n_channels)
    expected = open_values(context, "conv1").evaluate(coalitions)
    values = open_values(context, "conv1")
    whole = ContributionValues.run
    seen = []

    def run_out_of_memory(self: ContributionValues, tensors: list[Tensor], rows: Tensor) -> Tensor:
        seen.append(len(rows))
        if len(seen) <= 2:
            raise error
        return whole(self, tensors, rows)

    monkeypatch.setattr(ContributionValues, "run", run_out_of_memory)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(values.evaluate(coalitions), expected, rtol=1e-6)
    assert [record.message.count("smaller batches") for record in caplog.records] == [1]


def test_memory_that_numpy_does_not_get_halves_parts_as_well() -> None:
    def compute(part: Tensor) -> int:
        if len(part) > 3:
            raise MemoryError("Unable to allocate 1. GiB for an array")
        return len(part)

    assert Shortage().compute_in_parts(torch.arange(10), compute, "numbers") == [3, 3, 3, 1]


def test_too_little_memory_for_one_example_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    values = open_values(make_context(SmallLeNet), "conv1")

    def always_fail(self: ContributionValues, tensors: list[Tensor], rows: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(ContributionValues, "run", always_fail)
    with pytest.raises(ImportanceError, match="one example"):
        values.evaluate(draw_coalitions(3, values.n_channels))


def test_too_little_memory_for_statistics_says_how_many_examples_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = make_context(Residual)
    values = open_values(context, "stem", is_recalibrated=True)
    assert isinstance(values, TiledValues)
    assert values.norms
    n_tries = 0

    def always_fail(self: Prefix, *arguments: object) -> list[Tensor]:
        nonlocal n_tries
        n_tries += 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Prefix, "__call__", always_fail)
    refused = rf"for {len(context.calibration)} examples at once, .* or try recalibrate=false, or n_examples"
    with pytest.raises(ImportanceError, match=refused):
        values.evaluate(draw_coalitions(3, values.n_channels))
    assert n_tries > 1


@pytest.mark.parametrize("method", ["leave-one-out", "shapley-partial"])
def test_methods_that_do_not_recalibrate_do_not_say_that_one_should_not(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(Residual)
    for norm in (module for module in context.network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = norm.running_var = None
        norm.track_running_stats = False

    def always_fail(self: TiledValues, *arguments: object) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TiledValues, "_go_through", always_fail)
    with pytest.raises(ImportanceError, match=r"use another device, or store statistics in the network$"):
        score(method, context)


class LoopingWithNorm(Looping):
    """Has a batch norm as well."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(self.norm(values))


def test_masking_with_statistics_of_the_examples_takes_no_fewer_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        context = make_classification(LoopingWithNorm(), (4,))
    coalitions = draw_coalitions(3, 5)
    kept_statistics = open_values(context, "first")
    fresh_statistics = open_values(context, "first", is_recalibrated=True)
    assert isinstance(kept_statistics, MaskedValues)
    assert isinstance(fresh_statistics, MaskedValues)
    expected = kept_statistics.evaluate(coalitions)
    whole = MaskedValues.compute_outputs

    def take_few(self: MaskedValues, inputs: Tensor, rows: Tensor) -> Tensor:
        if len(inputs) > N_EXAMPLES // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, inputs, rows)

    monkeypatch.setattr(MaskedValues, "compute_outputs", take_few)
    np.testing.assert_allclose(kept_statistics.evaluate(coalitions), expected, rtol=1e-6)
    with pytest.raises(ImportanceError, match=f"for {N_EXAMPLES} examples at once, from which batch norm"):
        fresh_statistics.evaluate(coalitions)


def test_an_error_that_is_not_about_memory_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = open_values(make_context(SmallLeNet), "conv1")

    def fail(self: ContributionValues, tensors: list[Tensor], rows: Tensor) -> Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(ContributionValues, "run", fail)
    with pytest.raises(RuntimeError, match="something else"):
        values.evaluate(draw_coalitions(3, values.n_channels))


def test_opening_leaves_the_network_as_it_is() -> None:
    context = make_context(SmallLeNet)
    before = {name: value.clone() for name, value in context.network.state_dict().items()}
    values = open_values(context, "conv2", {"conv1": [0], "linear1": [1, 2]})
    values.evaluate(draw_coalitions(5, values.n_channels))
    assert all(torch.equal(before[name], value) for name, value in context.network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in context.network.modules())
