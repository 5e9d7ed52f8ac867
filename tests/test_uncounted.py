"""Parameters whose MACs nobody counts are named, and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dirprune.cost import count_costs
from dirprune.groups import Grouping
from dirprune.tracing import find_groups
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


class _Around(nn.Module):
    """A recurrent layer and a function between layers, with something done to inputs and outputs."""

    def __init__(
        self, enter: Callable[[Tensor], Tensor] = torch.abs, leave: Callable[[Tensor], Tensor] = torch.abs
    ) -> None:
        super().__init__()
        self.enter, self.leave = enter, leave
        self.first = nn.Linear(4, 6)
        self.memory = nn.LSTM(6, 5, batch_first=True)
        self.second = nn.Linear(5, 6)
        self.matrix = nn.Parameter(torch.randn(6, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second(self.memory(torch.relu(self.first(self.enter(inputs))))[0])
        return self.leave(self.head(torch.relu(hidden) @ self.matrix))


def _normalise(inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return (inputs - 0.5) / 2


class _First(nn.Module):
    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        return parts[0]


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(3, 3, 5)

    def forward(self, pairs: Tensor) -> Tensor:
        return self.product(pairs[:, 0], pairs[:, 1])


class _Converting(nn.Module):
    """What of the inputs is computed with numpy enters beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(inputs + float(inputs.numpy().mean()))))


class _Counting(nn.Module):
    """A frozen parameter counts the passes."""

    def __init__(self) -> None:
        super().__init__()
        self.n_passes = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        self.n_passes += 1
        return self.layer(inputs)


class _Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).argmax(-1)


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


@pytest.mark.parametrize(
    ("network", "dtype"),
    [(_Around(), torch.float32), (_Around(Tensor.float), torch.uint8), (_Around(_normalise), torch.float32)],
    ids=["usual", "integers", "without gradients"],
)
def test_data_without_history_are_data_behind_the_first_layer(network: nn.Module, dtype: torch.dtype) -> None:
    assert find_uncounted(network, torch.zeros(2, 3, 4, dtype=dtype)) == [
        Uncounted("matrix", 36, is_functional=True),
        Uncounted("memory (LSTM)", 4 * 5 * (6 + 5 + 2), is_functional=False),
    ]


def test_layers_of_torch_are_named_where_outputs_have_no_gradients() -> None:
    found = find_uncounted(_Around(leave=lambda scores: scores.argmax(-1)), torch.zeros(2, 3, 4))
    assert [each.name for each in found] == ["memory (LSTM)"]
    network = nn.Sequential(nn.LSTMCell(4, 6), _First(), nn.Unflatten(1, (2, 3)), _Pair(), nn.Linear(5, 2))
    found = find_uncounted(network, torch.zeros(2, 4))
    assert [each.name for each in found] == ["0 (LSTMCell)", "3.product (Bilinear)"]
    assert found[1] == Uncounted("3.product (Bilinear)", 3 * 3 * 5 + 5, is_functional=False)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (_Converting(), "RuntimeError: Can't call numpy() on Tensor that requires grad"),
        (_Counting(), "RuntimeError: a leaf Variable that requires grad is being used in an in-place"),
        (_Choosing(), "no output has gradients, as behind argmax"),
    ],
    ids=["numpy", "counter", "argmax"],
)
def test_a_network_without_gradients_is_not_refused_but_said_to_be_unknown(
    network: nn.Module, why: str
) -> None:
    inputs = torch.zeros(2, 4)
    assert count_costs(network, inputs).macs > 0
    assert isinstance(find_groups(network, inputs), Grouping)
    said = warn_of_uncounted(network, inputs)
    assert said is not None
    assert said.startswith(f"WARNING: whether all MACs are counted could not be looked at: {why}")
    assert "\n" not in said


def test_a_network_that_takes_too_much_memory_with_gradients_is_said_to_be_unknown() -> None:
    class _Hungry(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(inputs)

    said = warn_of_uncounted(_Hungry(nn.Linear(4, 2)), torch.zeros(2, 4))
    assert said is not None
    assert said.endswith("could not be looked at: OutOfMemoryError: CUDA out of memory")


def test_attention_with_a_forward_of_its_own_is_named_unless_it_calls_layers() -> None:
    class _SelfAttention(nn.MultiheadAttention):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(inputs, inputs, inputs)[0]

    network = nn.Sequential(nn.Linear(4, 8), _SelfAttention(8, 2), nn.Linear(8, 2))
    assert [each.name for each in find_uncounted(network, torch.zeros(2, 3, 4))] == [
        "1 (_SelfAttention)",
        "1.out_proj (NonDynamicallyQuantizableLinear)",
    ]


def test_what_is_not_found_is_what_the_docstring_says() -> None:
    class _Limits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tied = nn.Linear(4, 4)
            self.summed = nn.Parameter(torch.randn(4))
            self.behind = nn.Parameter(torch.randn(4, 4))
            self.queries = nn.Parameter(torch.randn(2, 4))

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = F.linear(torch.relu(self.tied(inputs)), self.tied.weight.t())
            hidden = hidden + (inputs @ self.behind).detach()
            return self.queries @ hidden.transpose(1, 2) + (hidden * self.summed).sum()

    found = find_uncounted(_Limits(), torch.zeros(2, 3, 4))
    assert found == [Uncounted("queries", 8, is_functional=True)]


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
