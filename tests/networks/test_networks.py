"""Networks by name, their options and their initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dirprune.errors import ConfigurationError
from dirprune.networks import LeNet5, create_network


def test_lenet5_has_the_parameters_of_the_literature() -> None:
    network = create_network("lenet5")
    assert sum(parameter.numel() for parameter in network.parameters()) == 40_225
    assert [name for name, _ in network.named_children()][:7] == [
        "conv1",
        "bn1",
        "conv2",
        "bn2",
        "linear1",
        "linear2",
        "linear3",
    ]


def test_lenet5_pools_activates_normalises_and_has_no_activation_between_its_linear_layers() -> None:
    network = LeNet5().double().eval()
    with torch.no_grad():
        for module in (network.bn1, network.bn2):
            module.running_mean.uniform_(-1, 1)
            module.weight.uniform_(-1, 1)
    images = torch.randn(3, 1, 28, 28, dtype=torch.float64)
    hidden = images
    for conv, norm in ((network.conv1, network.bn1), (network.conv2, network.bn2)):
        hidden = norm(torch.relu(nn.functional.max_pool2d(conv(hidden), 2)))
    linear = network.linear3.weight @ network.linear2.weight @ network.linear1.weight
    bias = network.linear3(network.linear2(network.linear1.bias))
    torch.testing.assert_close(network(images), hidden.flatten(1) @ linear.T + bias)


def test_widths_classes_and_channels_are_options() -> None:
    network = create_network("lenet5", {"widths": (2, 3, 4, 5), "n_classes": 7, "in_channels": 3})
    assert network(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    assert network.linear1.weight.shape == (4, 3 * 16)


def test_a_seed_of_the_initial_weights_matters_reproduces_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (create_network("lenet5", seed=seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_function_of_ones_own_makes_the_network() -> None:
    assert isinstance(create_network(lambda width=1: nn.Linear(width, 1), {"width": 3}), nn.Linear)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("lenet", {}, r"^unknown network 'lenet'; did you mean 'lenet5'\? known: lenet5, "),
        ("lenet5", {"width": 3}, r"^unknown option 'width' of network 'lenet5'; did you mean 'widths'"),
        ("lenet5", {"widths": (1, 2)}, r"^LeNet-5 expects four positive widths, got \(1, 2\)"),
        ("lenet5", {"widths": (1, 2, 0, 4)}, r"^LeNet-5 expects four positive widths, got \(1, 2, 0, 4\)"),
        (dict, {}, r"^expected a network function that returns a torch\.nn\.Module, got a dict$"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(network, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_network(network, options)


def test_a_network_function_for_which_there_is_no_room_is_not_said_to_fail() -> None:
    def take_all() -> nn.Module:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        create_network(take_all)
