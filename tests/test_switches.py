"""Switches multiply channels where they enter their consumers, pass gradients, and leave no hook behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dirprune.errors import ArchitectureError, ConfigurationError
from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.switches import mask, switched
from dirprune.tracing import find_groups
from tests.networks_for_tests import CASES, build_case, build_mlp


def count_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in network.modules())


@pytest.mark.parametrize("name", CASES)
def test_ones_leave_the_network_as_it_is(name: str) -> None:
    network, inputs = build_case(name)
    network.eval()
    grouping = find_groups(network, inputs)
    values = {group: torch.ones(n) for group, n in grouping.n_channels.items()}
    with switched(network, grouping, values):
        switched_output = network(inputs)
    torch.testing.assert_close(switched_output, network(inputs), rtol=0, atol=0)


def test_factors_act_on_the_input_of_the_consumer_worked_out_by_hand() -> None:
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
        network[0].bias.copy_(torch.tensor([1.0, -1.0]))
        network[2].weight.copy_(torch.tensor([[10.0, 100.0]]))
        network[2].bias.fill_(5.0)
    grouping = find_groups(network, torch.zeros(2, 1))
    inputs = torch.tensor([[3.0]])  # hidden 4 and 5
    with switched(network, grouping, {"0": torch.tensor([0.5, 2.0])}):
        assert network(inputs).item() == 10 * 4 * 0.5 + 100 * 5 * 2 + 5


def test_flattened_and_concatenated_inputs_get_the_factor_of_their_channel() -> None:
    network, inputs = build_case("lenet")
    grouping = find_groups(network, inputs)
    seen: list[torch.Tensor] = []
    network.linear1.register_forward_hook(lambda layer, args, output: seen.append(args[0]))
    network.eval()(inputs)
    factors = torch.arange(1.0, 7.0)
    with switched(network, grouping, {"conv2": factors}):
        network(inputs)
    torch.testing.assert_close(seen[1], seen[0] * factors.repeat_interleave(4))


@pytest.mark.parametrize("name", CASES)
def test_values_per_example_equal_each_example_alone(name: str) -> None:
    network, inputs = build_case(name)
    network.double().eval()
    inputs = inputs.double()
    grouping = find_groups(network, inputs)
    assert grouping.names == CASES[name][2]
    generator = torch.Generator().manual_seed(3)
    values = {
        group: torch.rand(len(inputs), n, generator=generator, dtype=torch.float64)
        for group, n in grouping.n_channels.items()
    }
    with switched(network, grouping, values):
        together = network(inputs)
    for row in range(len(inputs)):
        with switched(network, grouping, {group: part[row] for group, part in values.items()}):
            torch.testing.assert_close(network(inputs[row : row + 1])[0], together[row])


def test_gradients_of_all_consumers_flow_into_shared_values() -> None:
    network, inputs = build_case("residual")
    network.double().eval()
    inputs = inputs.double()
    grouping = find_groups(network, inputs)

    def run(factors: torch.Tensor) -> torch.Tensor:
        with switched(network, grouping, {"stem": factors}):
            return network(inputs)

    factors = torch.linspace(0.5, 1.5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (factors,))


def test_hooks_are_gone_after_the_block_and_after_an_error_in_it() -> None:
    network, inputs = build_case("residual")
    grouping = find_groups(network, inputs)
    values = {"stem": torch.ones(6)}
    with switched(network, grouping, values):
        assert count_hooks(network) == 3
    assert count_hooks(network) == 0
    with pytest.raises(ZeroDivisionError), switched(network, grouping, values):
        raise ZeroDivisionError
    assert count_hooks(network) == 0


def test_hooks_are_gone_when_a_consumer_is_missing() -> None:
    grouping = find_groups(*build_case("residual"))
    network, _ = build_case("residual")
    del network.shortcut_b
    with pytest.raises(AttributeError), switched(network, grouping, {"stem": torch.ones(6)}):
        raise AssertionError("the block must not be entered")
    assert count_hooks(network) == 0


def test_unknown_group_and_wrong_shapes_are_refused() -> None:
    network, inputs = build_case("mlp")
    grouping = find_groups(network, inputs)
    for values, message in (
        ({"4": torch.ones(6)}, "expected values for channel groups 0, 2, got '4'"),
        ({"0": torch.ones(5)}, r"shape \(6,\) or \(batch, 6\) for '0', got \(5,\)"),
        ({"0": torch.ones(1, 1, 6)}, r"got \(1, 1, 6\)"),
    ):
        with pytest.raises(ConfigurationError, match=message), switched(network, grouping, values):
            raise AssertionError("the block must not be entered")
    with (
        pytest.raises(ConfigurationError, match="2 rows that enter the layer, got 3"),
        switched(network, grouping, {"0": torch.ones(3, 6)}),
    ):
        network(inputs)


def test_mask_has_ones_for_kept_channels_only() -> None:
    grouping = find_groups(build_mlp(), torch.zeros(2, 4))
    values = mask(grouping, {"0": [5, 0], "2": torch.tensor([1])})
    assert values["0"].tolist() == [1, 0, 0, 0, 0, 1]
    assert values["2"].tolist() == [0, 1, 0, 0, 0]
    with pytest.raises(ArchitectureError, match="between 0 and 4"):
        mask(grouping, {"2": [5]})


def test_switching_in_inference_mode_leaves_later_gradients_alone() -> None:
    network = nn.Sequential(nn.Linear(1, 37), nn.ReLU(), nn.Linear(37, 1))  # a size that no other test has
    inputs = torch.ones(2, 1)
    channels = tuple(range(37))
    group = ChannelGroup("0", 37, (Slot("0", channels),), (Slot("2", channels),))
    grouping = Grouping((group,))
    with torch.inference_mode(), switched(network, grouping, {"0": torch.ones(37)}):
        network(inputs)
    factors = torch.ones(37, requires_grad=True)
    with switched(network, grouping, {"0": factors}):
        network(inputs).sum().backward()
    assert factors.grad is not None
