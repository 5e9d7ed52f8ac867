"""Parameters whose MACs nobody counts are named, and no others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dirprune.uncounted import Uncounted, find_uncounted, warn_of_uncounted
from tests.networks_for_tests import CASES, build_case
from tests.test_groups import assert_same, take_snapshot


class _Recurrent(nn.Module):
    """A layer in front of a recurrent one and one behind it."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.memory = kind(6, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.memory(torch.relu(self.first(inputs)))[0][:, -1])


class _Filter(nn.Module):
    """A convolution by a function, with weights that are made whole first."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.gain = nn.Parameter(torch.ones(6, 1, 1, 1))
        self.shift = nn.Parameter(torch.zeros(6, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images -= 0.5  # in place, on what the network was given
        return F.conv2d(images, self.kernel * self.gain) + self.shift


class _Multiplying(nn.Module):
    """A parameter of the network itself, weights of a layer that is never called, and words' own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.positions = nn.Parameter(torch.zeros(1, 5, 4))
        self.never_called = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.words(words) + self.positions
        hidden = F.linear(torch.relu(hidden), self.never_called.weight, self.never_called.bias)
        return hidden @ self.matrix


class _Asking(nn.Module):
    """Learnt queries, which enter attention and a linear layer as inputs do."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, 4))
        self.project = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(self.project(self.queries), inputs, inputs)[0] + self.queries


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_named_with_all_of_their_parameters(kind: type[nn.RNNBase]) -> None:
    network = _Recurrent(kind)
    n_parameters = sum(parameter.numel() for parameter in network.memory.parameters())
    expected = Uncounted(f"memory ({kind.__name__})", n_parameters, is_functional=False)
    assert find_uncounted(network, torch.zeros(2, 3, 4)) == [expected]


def test_parameters_of_functional_calls_are_named() -> None:
    network = nn.Sequential(_Filter(), nn.Conv2d(6, 2, 1))
    assert find_uncounted(network, torch.zeros(2, 2, 5, 5)) == [
        Uncounted("0 (_Filter)", 6 * 2 * 9 + 6, is_functional=True)
    ]
    assert find_uncounted(_Multiplying(), torch.zeros(2, 5, dtype=torch.long)) == [
        Uncounted("matrix", 16, is_functional=True),
        Uncounted("never_called (Linear)", 20, is_functional=True),
    ]


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_uncounted_in_networks_of_layers(name: str) -> None:
    network, inputs = build_case(name)
    before = take_snapshot(network)
    assert find_uncounted(network, inputs) == []
    assert_same(before, take_snapshot(network))


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "mobilenet_v3_small"])
def test_tables_of_positions_and_scales_of_layers_are_not_uncounted(name: str) -> None:
    network = torchvision.models.get_model(name, weights=None)
    assert warn_of_uncounted(network, torch.zeros(1, 3, 224, 224)) is None


def test_layers_of_swin_that_functions_apply_are_named_and_its_tables_are_not() -> None:
    network = torchvision.models.swin_v2_t(weights=None)
    found = find_uncounted(network, torch.zeros(1, 3, 64, 64))
    assert {each.name.split(".")[-1] for each in found} == {"qkv (Linear)", "proj (Linear)"}
    assert len(found) == 2 * sum(
        isinstance(module, torchvision.models.swin_transformer.ShiftedWindowAttention)
        for module in network.modules()
    )


def test_learnt_queries_that_enter_layers_are_not_uncounted() -> None:
    assert find_uncounted(_Asking(), torch.zeros(2, 5, 4)) == []


def test_the_warning_is_one_line_that_names_the_first_few() -> None:
    network = _Recurrent(nn.LSTM)
    assert warn_of_uncounted(network, torch.zeros(2, 3, 4)) == (
        "WARNING: 260 parameters (86.1%) lie in layers whose MACs are not counted: memory (LSTM)"
    )
    filters = [layer for _ in range(4) for layer in (_Filter(), nn.Conv2d(6, 2, 1))]
    said = warn_of_uncounted(nn.Sequential(*filters), torch.zeros(1, 2, 12, 12))
    assert said is not None
    assert said.endswith("not counted: 0 (_Filter), 2 (_Filter), 4 (_Filter) and 1 more")
