"""Looking at a network's layers: their order, how often they are applied, which work in parts."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from dirprune.errors import ConfigurationError
from dirprune.layers import (
    LayerCall,
    copy_for_evaluation,
    is_in_parts,
    modes_restored,
    output_tensors,
    parameter_axis,
    record_layers,
)


class _Crossed(nn.Module):
    """Calls its layers in another order than it defines them, one of them twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.first = nn.Conv1d(2, 3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.second(self.first(inputs).mean(dim=2)))


def test_layers_are_recorded_in_the_order_of_their_first_calls() -> None:
    calls = record_layers(_Crossed(), torch.zeros(4, 2, 7))
    assert calls == [LayerCall("first", 4 * 5), LayerCall("second", 4 * 2)]


def test_recording_leaves_no_hook_behind_even_after_an_error() -> None:
    network = _Crossed()
    record_layers(network, torch.zeros(4, 2, 7))
    with pytest.raises(ConfigurationError, match=r"inputs of shape \(4, 5, 7\), got RuntimeError"):
        record_layers(network, torch.zeros(4, 5, 7))
    assert all(not module._forward_hooks for module in network.modules())


def test_network_that_cannot_be_copied_is_one_clear_line() -> None:
    network = nn.Linear(2, 2)
    network.cached = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(ConfigurationError, match=r"copy\.deepcopy can copy, got RuntimeError"):
        copy_for_evaluation(network)


def test_copy_is_in_evaluation_mode_and_the_network_is_not() -> None:
    network = _Crossed().train()
    copy = copy_for_evaluation(network)
    assert not any(module.training for module in copy.modules())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), False),
        (nn.ConvTranspose1d(4, 4, 3, groups=4), False),
        (nn.Conv2d(4, 8, 3, groups=4), True),
        (nn.Conv2d(4, 4, 3, groups=2), True),
        (nn.Conv2d(1, 1, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_parts_have_several_channels(layer: nn.Module, expected: bool) -> None:
    assert is_in_parts(layer) is expected


def test_parameter_axis_is_the_last_one_longer_than_one() -> None:
    assert [parameter_axis(torch.Size(shape)) for shape in ((5, 1, 1), (1, 3, 4), (7,), (1, 1), ())] == [
        0, 2, 0, 0, 0,
    ]  # fmt: skip


def test_output_tensors_are_found_in_any_nesting() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    assert [len(t) for t in output_tensors({"a": one, "b": (two, [three, None, "text"])})] == [1, 2, 3]


@pytest.mark.parametrize("is_raising", [True, False])
def test_each_module_gets_its_own_mode_back_even_when_something_raises(is_raising: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    network[1].eval()
    with suppress(KeyboardInterrupt), modes_restored(network):
        network.eval()
        network[1].train()
        if is_raising:
            raise KeyboardInterrupt
    assert [module.training for module in network.modules()] == [True, True, False]
