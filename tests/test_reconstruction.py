"""What a reconstructed network gives is nearer to the dense one; what can be recovered exactly is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dirprune.data.roles import DataRoles, Split, make_roles
from dirprune.errors import ConfigurationError
from dirprune.importance import ScoringContext
from dirprune.pruning import prune
from dirprune.reconstruction import reconstruct_
from dirprune.surgery import compact
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.networks_for_tests import CASES, SmallLeNet, build_case


def make_context(network: nn.Module, inputs: Tensor) -> ScoringContext:
    n_inputs = len(inputs)
    split = Split(inputs, torch.arange(n_inputs) % 2, torch.arange(n_inputs), "inputs")
    return ScoringContext(
        network.eval(), find_groups(network, inputs[:2]), split, lambda batch: batch, make_task(), 0, "cpu"
    )


def cut(context: ScoringContext, kept: dict[str, list[int]]) -> nn.Module:
    return compact(context.network, context.grouping, kept, context.calibration.inputs[:2]).eval()


@torch.no_grad()
def measure_error(network: nn.Module, context: ScoringContext) -> float:
    inputs = context.calibration.inputs
    return float((network(inputs) - context.network(inputs)).square().mean())


def make_mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_a_channel_that_others_can_replace_is_replaced_exactly() -> None:
    network = make_mlp()
    first = network[0]
    with torch.no_grad():  # channel 7 is a copy of channel 2: its sign is turned by an odd function
        first.weight[7], first.bias[7] = -first.weight[2], -first.bias[2]
    context = make_context(network, torch.randn(300, 6, generator=torch.Generator().manual_seed(0)))
    kept = {"0": list(range(7))}
    smaller = cut(context, kept)
    assert measure_error(smaller, context) > 1e-4
    assert reconstruct_(smaller, context, kept, ridge=1e-9) == ["2"]
    assert measure_error(smaller, context) < 1e-10


def test_an_uncut_network_stays_as_it_is() -> None:
    context = make_context(make_mlp(), torch.randn(100, 6))
    kept = {"0": list(range(8))}
    smaller = cut(context, kept)
    reconstruct_(smaller, context, kept)
    for before, after in zip(context.network.parameters(), smaller.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize(
    "second",
    [
        nn.Conv2d(5, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(5, 3, 1, stride=3, bias=False),
        nn.Conv2d(5, 3, 5, padding=2, dilation=2),
    ],
)
def test_inputs_and_outputs_of_a_convolution_are_of_the_same_places(second: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), second)
    with torch.no_grad():
        second.weight[:, 4] = 0  # so that nothing is lost with its channel
    context = make_context(network, torch.randn(40, 2, 17, 14))
    kept = {"0": list(range(4))}
    smaller = cut(context, kept)
    assert reconstruct_(smaller, context, kept, ridge=1e-8) == ["2"]
    assert torch.allclose(smaller[2].weight, second.weight[:, :4], atol=1e-5)


def test_layers_before_the_first_cut_stay_as_they_are() -> None:
    context = make_context(build_case("lenet")[0], torch.randn(60, 1, 14, 14))
    *earlier, last = context.grouping.groups
    kept = {group.name: list(range(group.n_channels)) for group in earlier} | {last.name: [0, 1, 2]}
    smaller = cut(context, kept)
    refitted = reconstruct_(smaller, context, kept)
    assert {slot.module for slot in last.consumers} <= set(refitted)
    for group in earlier:
        for slot in group.producers:
            assert slot.module not in refitted
            before, after = (each.get_submodule(slot.module) for each in (context.network, smaller))
            assert torch.equal(before.weight, after.weight)


def test_a_network_that_cannot_be_refitted_gets_new_statistics() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 3),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    network(torch.zeros(2, 1, 8, 8))
    images = torch.randint(0, 256, (120, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    roles = make_roles("noise", images[:100], torch.arange(100) % 2, images[100:], torch.arange(20) % 2)
    pruned = prune(network, roles, architecture=0.5, method="random", reconstruct=True)
    kept = pruned.kept["0"]
    assert not torch.allclose(pruned.network[1].running_mean, network[1].running_mean[kept])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1000), kept=st.sets(st.integers(0, 7), min_size=1))
def test_the_error_of_a_single_linear_layer_never_grows(seed: int, kept: set[int]) -> None:
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(seed))
    context = make_context(make_mlp(seed), inputs)
    smaller = cut(context, {"0": sorted(kept)})
    before = measure_error(smaller, context)
    reconstruct_(smaller, context, {"0": sorted(kept)}, ridge=1e-4)
    assert measure_error(smaller, context) <= before * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("name", CASES)
def test_networks_of_all_kinds_come_nearer_to_the_dense_one(name: str) -> None:
    network, example = build_case(name)
    inputs = torch.randn(400, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    context = make_context(network, inputs)
    kept = {group.name: list(range(0, group.n_channels, 2)) for group in context.grouping.groups}
    smaller = cut(context, kept)
    before = measure_error(smaller, context)
    assert reconstruct_(smaller, context, kept)
    assert measure_error(smaller, context) < 0.8 * before


def test_memory_bounds_what_is_held_and_does_not_change_the_result() -> None:
    context = make_context(build_case("lenet")[0], torch.randn(60, 1, 14, 14))
    kept = {group.name: [0, 1, 2] for group in context.grouping.groups}
    wide, narrow = cut(context, kept), cut(context, kept)
    reconstruct_(wide, context, kept)
    reconstruct_(narrow, replace(context, memory_mb=0), kept)
    for one, other in zip(wide.parameters(), narrow.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_one_pass_refits_all_layers() -> None:
    context = make_context(build_case("lenet")[0], torch.randn(60, 1, 14, 14))
    kept = {group.name: [0, 1, 2] for group in context.grouping.groups}
    smaller = cut(context, kept)
    passes: list[int] = []
    smaller.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    assert len(reconstruct_(smaller, context, kept)) > 1
    assert passes == [60]


def test_pruning_can_reconstruct() -> None:
    images = torch.randint(0, 256, (260, 1, 14, 14), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.arange(260) % 3
    roles: DataRoles = make_roles(
        "noise", images[:200], labels[:200], images[200:], labels[200:], n_classes=3, mean=(0.5,), std=(0.25,)
    )
    network = SmallLeNet()
    recalibrated = prune(network, roles, architecture="2,3,4", method="magnitude")
    reconstructed = prune(network, roles, architecture="2,3,4", method="magnitude", reconstruct=True)
    assert reconstructed.kept == recalibrated.kept
    batch = roles.normalise(roles.calibration.inputs)
    with torch.no_grad():
        wanted = network.eval()(batch)
        errors = [float((p.network(batch) - wanted).square().mean()) for p in (recalibrated, reconstructed)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("options", [{"ridge": 0.0}, {"n_positions": 0}, {"n_images": 0}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    context = make_context(make_mlp(), torch.randn(20, 6))
    with pytest.raises(ConfigurationError, match="reconstruction needs"):
        reconstruct_(cut(context, {"0": [0]}), context, {"0": [0]}, **options)  # type: ignore[arg-type]


def test_what_is_known_of_the_dense_network_is_used_again_and_changes_nothing() -> None:
    context = make_context(build_case("lenet")[0], torch.randn(60, 1, 14, 14))
    passes: list[int] = []

    def count(network: nn.Module, inputs: tuple[Tensor]) -> None:
        if network is context.network:  # copies have the hook too
            passes.append(len(inputs[0]))

    context.network.register_forward_pre_hook(count)
    known: dict[str, Tensor] = {}
    n_passes = []
    for group in context.grouping.groups:
        whole = {each.name: list(range(each.n_channels)) for each in context.grouping.groups}
        kept = whole | {group.name: [0, 1, 2]}
        alone, together = cut(context, kept), cut(context, kept)
        assert reconstruct_(alone, context, kept)
        passes.clear()
        reconstruct_(together, context, kept, known=known)
        n_passes.append(sum(passes))
        for one, other in zip(alone.parameters(), together.parameters(), strict=True):
            assert torch.equal(one, other)
    assert n_passes[0] > 60  # one image shows the order of the layers
    assert set(n_passes[1:]) == {1}
