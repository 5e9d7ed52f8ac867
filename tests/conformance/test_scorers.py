"""What every importance method must do; it runs over the registry, so that to register is to be tested."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from dirprune.errors import ImportanceError
from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance import (
    Scorer,
    ScoringContext,
    create,
    get_method,
    list_methods,
    select_channels,
)
from dirprune.importance.simplex import draw_orders
from dirprune.importance.simplex import scorers as simplex_scorers
from dirprune.importance.simplex.generalized_dirichlet import join_orders
from dirprune.importance.untouched import Fingerprint
from tests.importance.cases import (
    QUICK_OPTIONS,
    create_quickly,
    ignore_,
    make_context,
    make_split,
    permute_,
    score,
    silence_,
)
from tests.networks_for_tests import Narrow, Residual, SmallLeNet

ROOT = Path(__file__).parents[2]
LIMIT = 8  # examples for which there is memory
METHODS = list_methods()
SCORERS = [name for name in METHODS if issubclass(get_method(name).factory, Scorer)]
KINDS = [SmallLeNet, Residual]
LONG_FITS = ("generalized-dirichlet", "logistic-normal")

every_method = pytest.mark.parametrize("name", METHODS)
every_scorer = pytest.mark.parametrize("name", SCORERS)
every_network = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def cached_scores(name: str, kind: type[nn.Module], seed: int = 0) -> dict[str, Tensor]:
    return score(name, make_context(kind, seed=seed), QUICK_OPTIONS[name])


@pytest.fixture(scope="module")
def scores_of_another_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    path = tmp_path_factory.mktemp("scores") / "scores.safetensors"
    scored = {name: QUICK_OPTIONS[name] for name in SCORERS}
    program = f"""
import torch
torch.set_num_threads({torch.get_num_threads()})
from safetensors.torch import save_file
from tests.importance.cases import make_context, score
found = {{}}
for name, options in {scored!r}.items():
    scores = score(name, make_context(), options)
    found |= {{f"{{name}}/{{group}}": scores[group] for group in scores}}
save_file(found, {str(path)!r})
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=240)
    return load_file(path)


def is_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def check_equal(scores: dict[str, Tensor], expected: dict[str, Tensor], breach: str) -> None:
    """Fail with what a method has broken and the first channel that shows it."""
    assert list(scores) == list(expected)
    for group, values in scores.items():
        differing = (values != expected[group]).nonzero().flatten().tolist()
        where = f"channel {differing[0]} of {group!r}" if differing else ""
        assert not differing, (
            f"{breach}: {where} has {values[differing[0]]}, then {expected[group][differing[0]]} "
            f"({len(differing)} of {len(values)} differ)"
        )


def compute_rank_correlation(left: Tensor, right: Tensor) -> float:
    return float(spearmanr(left, right).statistic)  # equal scores share their ranks


@every_network
@every_scorer
def test_scores_are_finite_and_one_per_channel(name: str, kind: type[nn.Module]) -> None:
    grouping = make_context(kind).grouping
    scores = cached_scores(name, kind)
    assert list(scores) == list(grouping.names)
    for group in grouping.groups:
        assert scores[group.name].shape == (group.n_channels,)
        assert scores[group.name].dtype == torch.float64
        assert scores[group.name].isfinite().all()


@every_method
def test_selection_keeps_what_the_architecture_says(name: str) -> None:
    context = make_context()
    architecture = {group.name: max(1, group.n_channels // 2) for group in context.grouping.groups}
    selection = select_channels(create_quickly(name), context, architecture)
    for group in context.grouping.groups:
        kept = selection.kept[group.name]
        assert kept == sorted(set(kept))
        assert len(kept) == architecture[group.name]
        assert set(kept) <= set(range(group.n_channels))


@every_method
def test_every_option_says_what_it_means(name: str) -> None:
    method = get_method(name)
    assert list(method.meanings) == list(method.options)
    assert all(meaning.endswith(".") for meaning in method.meanings.values())


@every_scorer
def test_same_seed_gives_the_same_scores(name: str) -> None:
    breach = f"{name} gives other scores for the same seed; draw from context.seed alone"
    check_equal(score(name, make_context(), QUICK_OPTIONS[name]), cached_scores(name, SmallLeNet), breach)


@pytest.mark.slow
@every_scorer
def test_same_seed_gives_the_same_scores_in_another_process(
    name: str, scores_of_another_process: dict[str, Tensor]
) -> None:
    expected = cached_scores(name, SmallLeNet)
    there = {group: scores_of_another_process[f"{name}/{group}"] for group in expected}
    breach = f"{name} gives other scores in another process; let no hash(), set or id() decide"
    check_equal(there, expected, breach)


@every_scorer
def test_another_seed_matters_for_stochastic_methods_only(name: str) -> None:
    is_same = is_equal(cached_scores(name, SmallLeNet), cached_scores(name, SmallLeNet, seed=1))
    said = f"{name} is registered with stochastic={get_method(name).stochastic}"
    assert is_same is not get_method(name).stochastic, (
        f"{said}, but another seed gives {'the same' if is_same else 'other'} scores"
    )


@every_scorer
def test_global_random_state_neither_matters_nor_changes(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        before = torch.get_rng_state()
        scores = score(name, make_context(), QUICK_OPTIONS[name])
        is_as_before = torch.equal(torch.get_rng_state(), before)
    assert is_as_before, (
        f"{name} draws from torch's global state; give what draws a generator of context.seed"
    )
    breach = f"{name} gives other scores with another global state; draw from context.seed alone"
    check_equal(scores, cached_scores(name, SmallLeNet), breach)


@every_network
@every_method
def test_network_is_left_untouched(name: str, kind: type[nn.Module]) -> None:
    context = make_context(kind)
    network = context.network.train()  # a mode, gradients and flags that scoring would not choose itself
    next(network.parameters()).requires_grad_(False)
    list(network.parameters())[-1].grad = torch.ones_like(list(network.parameters())[-1])
    before = Fingerprint.of(network)
    select_channels(create_quickly(name), context, {group.name: 1 for group in context.grouping.groups})
    change = before.difference(network)
    assert change is None, f"{name} has changed the network that it was given: {change}"


@every_network
@every_scorer
def test_mode_and_frozen_weights_of_the_network_do_not_matter(name: str, kind: type[nn.Module]) -> None:
    context = make_context(kind)
    context.network.train().requires_grad_(False)
    breach = f"{name} gives other scores of a network in training mode whose weights are frozen"
    check_equal(score(name, context, QUICK_OPTIONS[name]), cached_scores(name, kind), breach)


def permute(context: ScoringContext) -> tuple[ScoringContext, dict[str, Tensor]]:
    """Return the context of the same network with its channels in other orders, and these."""
    network = copy.deepcopy(context.network)
    orders = {}
    for number, group in enumerate(context.grouping.groups):
        orders[group.name] = torch.randperm(group.n_channels, generator=torch.Generator().manual_seed(number))
        permute_(network, group, orders[group.name].tolist())
    with torch.no_grad():
        inputs = context.calibration.inputs
        torch.testing.assert_close(network(inputs), context.network(inputs), rtol=1e-3, atol=1e-4)
    return dataclasses.replace(context, network=network), orders


@pytest.mark.parametrize("kind", [SmallLeNet, pytest.param(Residual, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG_FITS else name for name in SCORERS]
)
def test_permuting_channels_permutes_their_scores(name: str, kind: type[nn.Module]) -> None:
    is_stochastic = get_method(name).stochastic
    context = make_context(kind, ratio=0.5 if is_stochastic else 1.0)
    scores = score(name, context)
    permuted_context, orders = permute(context)
    permuted = score(name, permuted_context)
    for group_name, order in orders.items():
        expected = scores[group_name][order]
        if is_stochastic:
            correlation = compute_rank_correlation(permuted[group_name], expected)
            assert correlation > 0.7, (
                f"{name} gives permuted channels of {group_name!r} another order (rank correlation "
                f"{correlation:.2f}); noise must follow the channel, not its place, as that of random does"
            )
        else:
            breach = f"{name} gives permuted channels of {group_name!r} other scores; no place may matter"
            torch.testing.assert_close(
                permuted[group_name],
                expected,
                rtol=1e-3,
                atol=1e-9,
                msg=lambda said, breach=breach: f"{breach}: {said}",  # type: ignore[misc]
            )


@pytest.mark.parametrize("search", ["exact", "curvature"])
@every_network
def test_permuting_channels_permutes_what_greedy_keeps(kind: type[nn.Module], search: str) -> None:
    context = make_context(kind)
    permuted_context, orders = permute(context)
    architecture = {group.name: max(1, group.n_channels // 2) for group in context.grouping.groups}
    method = create("greedy", {"search": search})
    kept, permuted = (
        select_channels(method, each, architecture).kept for each in (context, permuted_context)
    )
    for group, order in orders.items():
        assert sorted(order[permuted[group]].tolist()) == kept[group]


@every_network
def test_permuting_channels_and_orders_of_sticks_permutes_the_scores_of_generalized_dirichlets(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, options = make_context(kind), {"steps": 30}
    expected = score("generalized-dirichlet", context, options)
    permuted_context, orders = permute(context)
    source = join_orders(list(orders.values()))  # of each channel, where it was

    def draw_permuted(n_channels: Mapping[str, int], n_orders: int, rng: torch.Generator) -> Tensor:
        return source.argsort()[draw_orders(n_channels, n_orders, rng)]

    monkeypatch.setattr(simplex_scorers, "draw_orders", draw_permuted)
    permuted = score("generalized-dirichlet", permuted_context, options)
    for group, order in orders.items():
        torch.testing.assert_close(permuted[group], expected[group][order], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("how", ["never reached", "never used"])
@pytest.mark.parametrize("kind", [SmallLeNet, pytest.param(Residual, marks=pytest.mark.slow)])
@every_scorer
def test_dead_channel_never_outranks_a_live_one(name: str, kind: type[nn.Module], how: str) -> None:
    context = make_context(kind)
    group = context.grouping.groups[0]
    dead = [0, group.n_channels // 2]
    (silence_ if how == "never reached" else ignore_)(context.network, group, dead)
    scores = score(name, context)[group.name]
    live = [channel for channel in range(group.n_channels) if channel not in dead]
    assert scores[dead].max() < scores[live].min(), (
        f"{name} gives a dead channel {scores[dead].max()}, a live one {scores[live].min()}"
    )


@every_scorer
def test_group_with_one_channel_is_scored(name: str) -> None:
    network = nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    grouping = Grouping((ChannelGroup("0", 1, (Slot("0", (0,)),), (Slot("2", (0,)),)),))
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    context = dataclasses.replace(
        make_context(),
        network=network,
        grouping=grouping,
        calibration=make_split(inputs, torch.arange(20) % 2),
    )
    scores = score(name, context, QUICK_OPTIONS[name])
    assert scores["0"].shape == (1,)
    assert scores["0"].isfinite().all()


@every_method
def test_one_channel_of_a_convolution_is_kept_beside_a_wider_group(name: str) -> None:
    context = make_context(Narrow)
    producers = (Slot("narrow", (0,)), Slot("bn", (0,)))
    narrow = ChannelGroup("narrow", 1, producers, (Slot("wide", (0,)),))
    context = dataclasses.replace(context, grouping=Grouping((narrow, context.grouping["wide"])))
    selection = select_channels(create_quickly(name), context, {"narrow": 1, "wide": 2})
    assert selection.kept["narrow"] == [0]
    assert len(selection.kept["wide"]) == 2


@every_method
def test_class_that_calibration_lacks_does_no_harm(name: str) -> None:
    context = make_context()
    is_there = context.calibration.targets != 0
    assert 0 < int(is_there.sum()) < len(context.calibration)
    calibration = context.calibration.subset(is_there.nonzero().flatten())
    architecture = {"conv1": 2, "conv2": 3, "linear1": 4}
    lacking = dataclasses.replace(context, calibration=calibration)
    kept = select_channels(create_quickly(name), lacking, architecture).kept
    assert {group: len(channels) for group, channels in kept.items()} == architecture


@pytest.mark.parametrize("where", ["inputs", "weights"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in METHODS if get_method(name).needs_data),
        *((name, {"search": "curvature"}) for name in ("greedy", "greedy-path")),  # for deep networks only
    ],
)
def test_activations_that_are_not_a_number_end_in_one_line(
    name: str, options: dict[str, str], where: str
) -> None:
    context = make_context()
    if where == "inputs":
        context.calibration.inputs[5, 0, 3, 3] = torch.nan
    else:
        context.network.conv1.weight.data[1, 0, 0, 0] = torch.nan  # type: ignore[operator,index]
    method = create(name, QUICK_OPTIONS[name] | options)
    with pytest.raises(ImportanceError) as caught:
        select_channels(method, context, {"conv1": 2, "conv2": 3, "linear1": 4})
    assert "\n" not in str(caught.value)
    assert "look for NaN in weights and calibration inputs" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SCORERS
        if name != "greedy-path"  # its statistics need all images at once
    ],
)
def test_out_of_memory_means_smaller_batches_and_is_said_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = make_context()
    assert len(context.calibration) > 64 > LIMIT
    found_before = cached_scores(name, SmallLeNet)
    convolve = nn.Conv2d.forward

    def run_out_of_memory(self: nn.Conv2d, values: Tensor) -> Tensor:
        if len(values) > LIMIT:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return convolve(self, values)

    monkeypatch.setattr(nn.Conv2d, "forward", run_out_of_memory)
    with caplog.at_level(logging.WARNING):
        scores = score(name, context, QUICK_OPTIONS[name])
    said = [record.message for record in caplog.records]
    assert sum("going on in smaller batches" in message for message in said) == 1, said
    for group, expected in found_before.items():
        if "steps" in QUICK_OPTIONS[name]:  # sums in other orders, step by step, end in other scores
            assert scores[group].isfinite().all()
        else:
            torch.testing.assert_close(scores[group], expected, rtol=1e-4, atol=1e-7)


@every_scorer
def test_network_without_groups_has_no_scores(name: str) -> None:
    context = dataclasses.replace(make_context(), grouping=Grouping(()))
    assert score(name, context) == {}


def test_context_holds_no_validation_and_no_test_data() -> None:
    names = {field.name for field in dataclasses.fields(ScoringContext)}
    assert "calibration" in names
    assert not [name for name in names if "valid" in name or "test" in name or name in ("roles", "train")]
