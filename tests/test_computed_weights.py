"""Weights that masks or norms compute are named, with what makes them plain; and that does."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from dirprune import pruning
from dirprune.data import load_data
from dirprune.errors import ConfigurationError
from dirprune.tracing import find_groups
from tests.networks_for_tests import SmallLeNet

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")

INPUTS = torch.zeros(2, 1, 14, 14)


def mask_half(module: nn.Module) -> nn.Module:
    return prune.l1_unstructured(module, "weight", 0.5)


def make_plain_(module: nn.Module, message: str) -> None:
    """Do what a message says to try."""
    found = re.search(r"try (torch\.\S+\(module, \"weight\"\)) first", message)
    assert found, message
    eval(found[1], {"torch": torch, "module": module})


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("compute", [mask_half, weight_norm, spectral_norm])
def test_weights_that_hooks_compute_end_in_a_line_that_says_what_to_do(
    compute: Callable[[nn.Module], nn.Module], has_run: bool
) -> None:
    network = SmallLeNet().eval()
    compute(network.conv2)
    if has_run:
        with torch.no_grad():
            network(INPUTS)
    with pytest.raises(ConfigurationError, match=r"plain weights, got 'weight' of 'conv2' computed") as told:
        find_groups(network, INPUTS)
    assert "\n" not in str(told.value)
    make_plain_(network.conv2, str(told.value))
    assert find_groups(network, INPUTS).names == ("conv1", "conv2", "linear1")


@pytest.mark.parametrize("compute", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_groups_of_parametrized_weights_are_refused_with_what_makes_them_plain(
    compute: Callable[[nn.Module], nn.Module],
) -> None:
    network = SmallLeNet().eval()
    compute(network.conv2)
    refused = find_groups(network, INPUTS).refused
    assert list(refused) == ["conv1", "conv2"]
    make_plain_(network.conv2, refused["conv2"])
    assert find_groups(network, INPUTS).names == ("conv1", "conv2", "linear1")


def test_pruning_a_masked_network_says_so() -> None:
    network = nn.Sequential(nn.Flatten(), mask_half(nn.Linear(784, 6)), nn.Linear(6, 10))
    with pytest.raises(
        ConfigurationError, match=r"got 'weight' of '1' .* by masks of torch\.nn\.utils\.prune"
    ):
        pruning.prune(network, load_data("digits"), architecture=0.5, method="magnitude")
