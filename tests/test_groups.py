"""Channel groups are found whole, in forward order, refused rather than cut wrongly, and leave no trace."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dirprune import tracing
from dirprune.errors import ArchitectureError, ConfigurationError
from dirprune.groups import ChannelGroup, Grouping, Slot, narrow
from dirprune.layers import copy_for_evaluation
from dirprune.networks.lenet import LeNet5
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from tests.networks_for_tests import CASES, LayerNormed, Segmenting, build_case, build_mlp


def take_snapshot(network: nn.Module) -> dict[str, object]:
    """Return everything about a network that looking at it must not change."""
    return {
        "state": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "trainable": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "attributes": [sorted(vars(module)) for module in network.modules()],
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before.keys() == after.keys()
    for key in ("modes", "trainable", "hooks", "attributes"):
        assert before[key] == after[key], key
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)
    for left, right in zip(before["gradients"], after["gradients"], strict=True):  # type: ignore[call-overload]
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)


@pytest.mark.parametrize("name", CASES)
def test_every_group_of_a_network_that_can_be_cut_is_found_in_forward_order(name: str) -> None:
    network, inputs = build_case(name)
    grouping = find_groups(network, inputs)
    assert grouping.names == CASES[name][2]
    assert grouping.refused == {}


def test_lenet5_has_four_groups_and_its_output_layer_is_neither_group_nor_refused() -> None:
    grouping = find_groups(LeNet5(), torch.zeros(2, 1, 28, 28))
    assert grouping.n_channels == {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25}
    assert grouping.refused == {}
    conv2 = grouping["conv2"]
    assert [slot.module for slot in conv2.producers] == ["conv2", "bn2"]
    assert [slot.module for slot in conv2.consumers] == ["linear1"]


def test_flatten_gives_each_channel_its_neighbouring_inputs() -> None:
    grouping = find_groups(LeNet5(), torch.zeros(2, 1, 28, 28))
    (slot,) = grouping["conv2"].consumers
    assert slot.channel_of == tuple(index // 16 for index in range(320))


def test_residual_additions_couple_their_channels() -> None:
    network, inputs = build_case("residual")
    stem = find_groups(network, inputs)["stem"]
    assert {slot.module for slot in stem.producers} == {"stem", "bn", "conv_a2", "bn_a2"}
    assert [slot.module for slot in stem.consumers] == ["conv_a1", "conv_b1", "shortcut_b"]


def test_concatenation_gives_each_group_its_own_part_of_the_consumer() -> None:
    network, inputs = build_case("concatenating")
    grouping = find_groups(network, inputs)
    left = {slot.module: slot.channel_of for slot in grouping["left"].consumers}
    (right,) = grouping["right"].consumers
    assert left["both"] == (0, 1, 2, 3) + (-1,) * 6
    assert right.channel_of == (-1,) * 4 + (0, 1, 2, 3, 4, 5)
    assert left["head"] == (-1,) * 5 + (0, 1, 2, 3)


def test_depthwise_convolution_belongs_to_its_input_group_as_a_producer() -> None:
    network, inputs = build_case("depthwise")
    expand = find_groups(network, inputs)["expand"]
    assert "depthwise" in {slot.module for slot in expand.producers}
    assert {slot.module for slot in expand.consumers} == {"squeeze", "project"}


def test_group_under_layer_norm_is_refused_and_its_neighbour_is_not() -> None:
    grouping = find_groups(LayerNormed(), torch.zeros(2, 4))
    assert grouping.names == ("second",)
    assert list(grouping.refused) == ["first"]
    assert grouping.refused["first"] == "'norm' normalises over its channels: without one, all others change"


def test_convolution_in_parts_is_cut_part_by_part_with_what_enters_and_what_leaves_it() -> None:
    network, inputs = build_case("in parts")
    grouping = find_groups(network, inputs)
    group = grouping["reduce"]
    assert group.n_channels == 3
    places = {slot.module: slot.channel_of for slot in (*group.producers, *group.consumers)}
    assert places["reduce"] == places["bn_reduce"] == (0, 0, 1, 1, 2, 2)
    assert places["parts"] == places["excite"] == places["expand"] == (0,) * 4 + (1,) * 4 + (2,) * 4
    assert {slot.module for slot in group.consumers} == {"squeeze", "expand"}
    small = compact(network, grouping, {"reduce": [0, 2]}, inputs)
    assert (small.parts.groups, small.parts.in_channels, small.parts.out_channels) == (2, 4, 8)
    assert torch.equal(small.parts.weight, network.parts.weight[[0, 1, 2, 3, 8, 9, 10, 11]])


def test_channels_that_a_group_norm_takes_together_are_cut_together_and_so_across_a_shortcut() -> None:
    network, inputs = build_case("group normed")
    grouping = find_groups(network, inputs)
    assert grouping.n_channels == {"stem": 3, "conv_a": 5}
    places = {
        slot.module: slot.channel_of for slot in (*grouping["stem"].producers, *grouping["stem"].consumers)
    }
    assert set(places.values()) == {(0,) * 4 + (1,) * 4 + (2,) * 4}
    assert set(places) == {"stem", "pairs", "conv_b", "fours", "conv_a", "head"}
    small = compact(network, grouping, {"stem": [0, 2], "conv_a": [1, 3]}, inputs)
    assert [(norm.num_groups, norm.num_channels) for norm in (small.pairs, small.fours, small.alone)] == [
        (4, 8),
        (2, 8),
        (2, 2),
    ]
    staying = [0, 1, 2, 3, 8, 9, 10, 11]
    assert torch.equal(small.pairs.weight, network.pairs.weight[staying])
    assert small(inputs).shape == network(inputs).shape


def test_group_norm_over_joined_branches_is_cut_only_where_it_keeps_them_apart() -> None:
    class Joined(nn.Module):
        def __init__(self, n_left: int) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(1, n_left, 1), nn.Conv2d(1, 8 - n_left, 1)
            self.norm, self.head = nn.GroupNorm(4, 8), nn.Conv2d(8, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(torch.cat([self.left(images), self.right(images)], 1)))

    joined = find_groups(Joined(4), torch.zeros(2, 1, 3, 3))
    assert joined.n_channels == joined.channels_per_part == {"left": 2, "right": 2}
    refused = find_groups(Joined(3), torch.zeros(2, 1, 3, 3)).refused
    assert refused == dict.fromkeys(("left", "right"), "'norm' normalises some of its channels with others")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("in parts", {"reduce": 2, "squeeze": 1, "expand": 1}),
        ("group normed", {"stem": 4, "conv_a": 1}),
        ("lenet", {"conv1": 1, "conv2": 1, "linear1": 1}),
    ],
)
def test_channels_per_part_are_those_of_the_first_layer_also_of_what_is_left(name, expected) -> None:
    grouping = find_groups(*build_case(name))
    assert grouping.channels_per_part == expected
    one = {group: [0] for group in grouping.names}
    assert narrow(grouping, one).channels_per_part == expected


def test_channels_per_part_do_not_count_what_other_groups_have_on_a_shared_axis() -> None:
    slots = (Slot("norm", (-1,) * 2 + (0, 0, 0, 1, 1, 1)), Slot("wide", (0, 0, 0, 1, 1, 1, -1, -1)))
    assert ChannelGroup("wide", 2, slots, ()).channels_per_part == 3


@pytest.mark.parametrize("name", CASES)
def test_narrowed_groups_cut_the_compact_network_as_the_whole_one_is_cut(name: str) -> None:
    network, inputs = build_case(name)
    network.eval()
    grouping = find_groups(network, inputs)
    first = {group: list(range(1, n)) for group, n in grouping.n_channels.items()}
    first.pop(grouping.names[0])
    narrowed = narrow(grouping, first)
    second = {group: list(range(max(1, n - 1))) for group, n in narrowed.n_channels.items()}
    both = {group: [first.get(group, [0, *range(1, 99)])[c] for c in second[group]] for group in second}
    twice = compact(compact(network, grouping, first, inputs), narrowed, second, inputs)
    once = compact(network, grouping, both, inputs)
    for path, tensor in once.state_dict().items():
        assert torch.equal(twice.state_dict()[path], tensor), path
    assert narrow(narrowed, second) == narrow(grouping, both)


class _Shuffling(nn.Module):
    """Reorders channels by a view whose sizes are written into the code, as ShuffleNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)
        self.second = nn.Conv2d(6, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images)
        n, _, height, width = hidden.shape
        hidden = hidden.view(n, 2, 3, height, width).transpose(1, 2).reshape(n, 6, height, width)
        return self.head(F.relu(self.second(hidden)))


class _AddedToInput(nn.Module):
    """Its first channels are added to the input, which cannot shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(self.first(inputs) + inputs)))


class _SideOutput(nn.Module):
    """Hands out its hidden features beside the result."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.first(inputs))
        return {"features": features, "result": self.head(torch.relu(self.second(features)))}


class _Multiplied(nn.Module):
    """The channels of `first` enter a matrix product that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.matrix = nn.Parameter(torch.ones(5, 3))
        self.last = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.first(inputs)) @ self.matrix)))


class _Gated(nn.Module):
    """The second half of the channels of `first` scales the first half."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, gate = self.first(inputs).chunk(2, dim=1)
        return self.head(torch.relu(self.last(hidden * torch.sigmoid(gate))))


class _AddedToParts(nn.Module):
    """The output of a convolution in parts is added to that of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 1)
        self.parts = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.last = nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = F.relu(self.first(images))
        return self.head(F.relu(self.last(first + self.parts(first))))


class _PartsOfInput(nn.Module):
    """A convolution in parts takes the network's input, which cannot shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Conv2d(4, 6, 3, groups=2)
        self.last = nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.last(F.relu(self.parts(images)))))


class _GatedByGlu(_Gated):
    """The same by a function, in which the tracer loses the channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(F.glu(self.first(inputs)))))


class _Gains(nn.Module):
    """A layer with a weight of its own for each output channel, of which the tracer knows nothing."""

    class Layer(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.gain = nn.Parameter(torch.ones(sizes[1], 1))

        def forward(self, inputs: Tensor) -> Tensor:
            return F.linear(inputs, self.weight * self.gain, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.first = self.Layer(4, 5)
        self.second = nn.Linear(5, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(inputs)))))


def _normed(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a network whose first layer has weights that are computed."""
    return nn.Sequential(wrap(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))


class _Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.third = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(inputs)))))))


class _NormsThatJoin(nn.Module):
    """Norms whose parts of six and of four channels, on one shortcut, have all twelve in common."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 12, 1), nn.Conv2d(12, 12, 1)
        self.sixes, self.fours = nn.GroupNorm(2, 12), nn.GroupNorm(3, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.sixes(self.first(images))
        return self.head(F.relu(hidden + self.fours(self.second(F.relu(hidden)))))


class _ConcatenatedThenFlattened(nn.Module):
    """The tracer loses the concatenation's offsets behind the flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 3, 1)
        self.right = nn.Conv2d(1, 4, 1)
        self.middle = nn.Linear(7 * 4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.left(images)), F.relu(self.right(images))], dim=1)
        return self.head(torch.relu(self.middle(joined.flatten(1))))


@pytest.mark.parametrize(
    ("network", "shape", "names", "refused"),
    [
        (_Shuffling(), (1, 5, 5), ("second",), {"first": "cannot run|differ"}),
        (_AddedToInput(), (4,), ("second",), {"first": "the compact network cannot run"}),
        (_SideOutput(), (4,), ("second",), {"first": "its channels are also an output of the network"}),
        (_Multiplied(), (4,), ("last",), {"first": "cannot be traced|cannot run|differ"}),
        (_AddedToParts(), (1, 5, 5), ("last",), {"first": "'parts', a convolution in parts, is added to it"}),
        (_PartsOfInput(), (4, 5, 5), ("last",), {"parts": "cannot run"}),
        (_GatedByGlu(), (4,), ("last",), {"first": "where channels go is lost, as behind a slice"}),
        (
            _Gains(),
            (4,),
            ("second",),
            {"first": "a layer has further weights for each channel (RuntimeError"},
        ),
        (
            nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1)),
            (1, 2, 2),
            ("2",),
            {"0": "'1' normalises over its channels: without one, all others change"},
        ),
        (_NormsThatJoin(), (1, 2, 2), (), {"first": "normalises over its channels: without one, all others"}),
        *(
            (_normed(wrap), (4,), ("2",), {"0": "the weights of '0' are computed for each pass"})
            for wrap in (parametrizations.weight_norm, parametrizations.spectral_norm)
        ),
        (_Gated(), (4,), ("last",), {"first": "its outputs are split between branches (chunk"}),
        (_Tied(), (4,), ("third",), {"first": "shares its weights", "second": "shares its weights"}),
        (_ConcatenatedThenFlattened(), (1, 2, 2), ("middle",), {"left": "cannot run|differ"}),
        (nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 3), nn.Linear(3, 2)), (4,), ("1",), {"0": "single"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_what_cannot_be_cut_rightly_is_refused_with_a_reason_of_one_line(
    network: nn.Module, shape: tuple[int, ...], names: tuple[str, ...], refused: dict[str, str]
) -> None:
    grouping = find_groups(network, torch.zeros(2, *shape))
    assert grouping.names == names
    assert list(grouping.refused) == list(refused)
    for name, reason in refused.items():
        assert any(part in grouping.refused[name] for part in reason.split("|")), grouping.refused[name]
        assert "\n" not in grouping.refused[name]


class _Convolutions(nn.Module):
    """Two layers with something between them, which changes channels or takes them apart."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)
        self.between = between

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.second(self.between(self.first(images)))))


class _Branching(nn.Module):
    """Each half of the channels of `first` enters a branch of its own."""

    def __init__(self, take_apart: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.left, self.right = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 7, 1)
        self.head = nn.Conv2d(12, 2, 1)
        self.take_apart = take_apart

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.take_apart(F.relu(self.first(images)))
        return self.head(torch.cat([F.relu(self.left(left)), F.relu(self.right(right))], dim=1))


class _Attention(nn.Module):
    """Attention written out, of rows that one layer gives at once or three."""

    def __init__(self, is_fused: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 24) if is_fused else nn.ModuleList(nn.Linear(4, 8) for _ in range(3))
        self.last = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, rows: Tensor) -> Tensor:
        is_fused = isinstance(self.first, nn.Linear)
        parts = self.first(rows).chunk(3, -1) if is_fused else [layer(rows) for layer in self.first]
        queries, keys, values = parts
        attended = (queries @ keys.transpose(1, 2)).softmax(-1) @ values
        return self.head(torch.relu(self.last(attended)))


class _PaddedShortcut(nn.Module):
    """A shortcut whose channels are padded to twice as many, as in networks for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.inner, self.outer = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.first(images))
        outer = self.outer(F.relu(self.inner(hidden)))
        return self.head(F.relu(outer + F.pad(hidden, (0, 0, 0, 0, 2, 2))))


class _PaddedRows(nn.Module):
    """Rows in any number of axes: a shortcut whose channels are padded, or padding in front and a softmax."""

    def __init__(self, is_shortcut: bool) -> None:
        super().__init__()
        self.is_shortcut = is_shortcut
        self.first = nn.Linear(4, 6)
        self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.relu(self.first(rows))
        if not self.is_shortcut:
            hidden = F.pad(hidden, (0, 0, 1, 0)).softmax(-1)
        outer = self.outer(torch.relu(self.inner(hidden)))
        return self.head(outer + F.pad(hidden, (1, 1)) if self.is_shortcut else outer)


class _Causal(nn.Module):
    """A convolution that looks back, behind a softmax over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)
        self.head = nn.Conv1d(8, 2, 3)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(F.pad(self.first(series).softmax(1), (2, 0)))


class _FunctionalConvolution(nn.Module):
    """The channels of `first` enter a convolution that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.kernel = nn.Parameter(torch.ones(6, 8, 3, 3))
        self.last = nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(F.conv2d(F.relu(self.first(images)), self.kernel))
        return self.head(F.relu(self.last(hidden)))


def _shuffle(images: Tensor) -> Tensor:
    return images.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def _pad_sides(images: Tensor) -> Tensor:
    return F.pad(images, (1, 1, 1, 1)).softmax(1)


SPLIT = "its outputs are split between branches (chunk, split or slice): only some enter"
MIXED = "as where channels are mixed or normalised outside of layers: a softmax or norm over channels"


@pytest.mark.parametrize(
    ("network", "name", "reason"),
    [
        (_Branching(lambda images: images.chunk(2, dim=1)), "first", f"{SPLIT} 'right'"),
        (_Branching(lambda images: images.split(8, dim=1)), "first", f"{SPLIT} 'right'"),
        (_Branching(lambda images: (images[:, :8], images[:, 8:])), "first", f"{SPLIT} 'left'"),
        (_Attention(is_fused=True), "first", f"{SPLIT} 'last'"),
        (_Attention(is_fused=False), "first.0", MIXED),
        (_Convolutions(lambda images: images.softmax(1)), "first", MIXED),
        (_Convolutions(F.normalize), "first", MIXED),
        (_Convolutions(_shuffle), "first", MIXED),
        (_Convolutions(_pad_sides), "first", MIXED),
        (_PaddedShortcut(), "first", "as behind shortcuts that pad"),
        (
            _FunctionalConvolution(),
            "first",
            "functional convolution or product with parameters of its own, which cannot be followed: kernel;",
        ),
    ],
    ids=[
        *("chunk", "split", "slice", "fused", "separate", "softmax", "norm", "shuffle", "pad sides"),
        *("shortcut", "functional"),
    ],
)
def test_the_reason_names_what_is_there(network: nn.Module, name: str, reason: str) -> None:
    shape = (5, 4) if isinstance(network, _Attention) else (3, 6, 6)
    said = find_groups(network, torch.zeros(2, *shape)).refused[name]
    assert reason in said
    assert ("shortcuts" in said) == isinstance(network, _PaddedShortcut)
    assert "IndexError" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("network", "shape", "is_shortcut"),
    [
        *((_PaddedRows(is_shortcut=True), shape, True) for shape in ((4,), (5, 4), (3, 5, 4))),
        *((_PaddedRows(is_shortcut=False), shape, False) for shape in ((5, 4), (3, 5, 4))),
        (_Causal(), (4, 6), False),
    ],
)
def test_padding_counts_where_the_channels_of_the_layer_are(
    network: nn.Module, shape: tuple[int, ...], is_shortcut: bool
) -> None:
    said = find_groups(network, torch.zeros(2, *shape)).refused["first"]
    assert ("as behind shortcuts that pad" in said) == is_shortcut
    assert (MIXED in said) != is_shortcut


def test_the_tracers_own_error_is_told_behind_functional_parameters_too() -> None:
    class _Refusing(_FunctionalConvolution):
        def forward(self, images: Tensor) -> Tensor:
            if torch.is_grad_enabled() and len(images) == 2:
                raise ValueError("no such batches")
            return super().forward(images)

    refused = find_groups(_Refusing(), torch.zeros(2, 3, 6, 6)).refused
    assert set(refused) == {"first", "last", "head"}
    for said in refused.values():
        assert said.endswith(
            "cannot be followed: kernel; try a layer such as nn.Conv2d (ValueError: no such batches)"
        )


def test_groups_that_can_be_cut_alone_but_not_together_are_not_both_accepted() -> None:
    class _Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.second = nn.Linear(6, 5)
            self.head = nn.Linear(5, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            first = torch.relu(self.first(inputs))
            second = torch.relu(self.second(first))
            return self.head(second) * (2.0 if first.shape[1] < 6 and second.shape[1] < 5 else 1.0)

    grouping = find_groups(_Counting(), torch.zeros(2, 4))
    assert grouping.names == ("first",)
    assert grouping.refused["second"].startswith("together with other groups, masked and compact outputs")


class _Chain(nn.Module):
    """Sixteen groups of which neither two of `sly` can be cut together nor one of `bad` alone."""

    def __init__(self, sly: tuple[int, ...] = (), bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.sly, self.bad = sly, bad
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(17))

    def forward(self, inputs: Tensor) -> Tensor:
        narrow = set()
        for place, layer in enumerate(self.layers):
            inputs = F.leaky_relu(layer(inputs))
            if inputs.shape[1] < 4 and place < 16:
                narrow.add(place)
        return inputs * (2.0 if narrow & set(self.bad) or len(narrow & set(self.sly)) > 1 else 1.0)


@pytest.fixture
def n_tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups each trial had."""
    tried: list[int] = []
    check = tracing.check_masked_equals_compact

    def count(network: nn.Module, grouping: Grouping, *given: object, **named: object) -> str | None:
        tried.append(len(grouping.groups))
        return check(network, grouping, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tracing, "check_masked_equals_compact", count)
    return tried


def test_few_groups_that_cannot_be_cut_are_found_in_few_trials(n_tried: list[int]) -> None:
    grouping = find_groups(_Chain(sly=(0, 13), bad=(5,)), torch.zeros(2, 4))
    assert list(grouping.refused) == ["layers.5", "layers.13"]
    assert grouping.refused["layers.5"].startswith("masked and compact outputs")
    assert grouping.refused["layers.13"].startswith("together with other groups, masked and compact outputs")
    assert len(grouping.groups) == 14
    assert len(n_tried) <= 1 + 2 * (2 * 4 + 1)  # both halves of four levels for each, and each alone


def test_each_layer_and_each_trial_tells_how_many_groups_are_kept_or_refused(n_tried: list[int]) -> None:
    told: list[tuple[str, int, int]] = []
    find_groups(_Chain(sly=(0, 13), bad=(5,)), torch.zeros(2, 4), progress=lambda *given: told.append(given))
    assert {(what, n_total) for what, _, n_total in told} == {(tracing.TRACED, 17), (tracing.TRIED_OUT, 16)}
    n_traced = [n_done for what, n_done, _ in told if what == tracing.TRACED]
    assert n_traced == [0, *range(18)]
    n_decided = [n_done for what, n_done, _ in told[len(n_traced) :]]
    assert len(n_decided) == len(n_tried) + 1
    assert n_decided == sorted(n_decided)
    assert (n_decided[0], n_decided[-2], n_decided[-1]) == (0, 14, 16)


def test_groups_that_are_left_after_the_last_trial_are_refused(
    n_tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MAX_CHECKS", 5)
    monkeypatch.setattr(tracing, "MAX_CHECKS_PER_GROUP", 0)
    grouping = find_groups(_Chain(bad=tuple(range(2, 16))), torch.zeros(2, 4))
    assert n_tried == [16, 8, 4, 2, 4]
    assert grouping.names == ("layers.0", "layers.1")
    reason = "it was not tried out: 5 trials of groups before it are all that is done"
    assert grouping.refused == {f"layers.{place}": reason for place in range(2, 16)}


def test_every_second_group_of_many_may_be_bad(n_tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_CHECKS", 5)
    grouping = find_groups(_Chain(bad=tuple(range(1, 16, 2))), torch.zeros(2, 4))
    assert grouping.names == tuple(f"layers.{place}" for place in range(0, 16, 2))
    assert 16 < len(n_tried) <= 4 * 16


def test_a_network_that_never_ends_once_it_is_cut_has_its_groups_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _EndlessWhenNarrow(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            narrow = self[0](inputs)
            while narrow.shape[1] < 4:
                narrow = narrow + 0
            return self[1](narrow)

    monkeypatch.setattr(tracing, "MAX_CHECK_S", 0.2)
    grouping = find_groups(_EndlessWhenNarrow(nn.Linear(4, 4), nn.Linear(4, 2)), torch.zeros(2, 4))
    assert grouping.names == ()
    reason, _, limit = grouping.refused["0"].rpartition(" more than ")
    assert reason == "the network without some of its channels takes"
    assert 0.2 <= float(limit.removesuffix(" s")) < 5


def test_a_network_for_whose_copy_there_is_no_room_is_not_said_to_have_none() -> None:
    class _Huge(nn.Linear):
        def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        find_groups(nn.Sequential(_Huge(4, 4), nn.Linear(4, 2)), torch.zeros(2, 4))


@pytest.mark.parametrize("least", [4, 5], ids=["once it is cut", "from the first pass on"])
def test_want_of_memory_is_no_reason_against_a_group(least: int) -> None:
    class _Hungry(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            hidden = self[0](inputs)
            if hidden.shape[1] < least:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self[1](hidden)

    network, inputs = _Hungry(nn.Linear(4, 4), nn.Linear(4, 2)), torch.zeros(2, 4)
    with pytest.raises(torch.OutOfMemoryError):
        find_groups(network, inputs)
    grouping = Grouping((ChannelGroup("0", 4, (Slot("0", (0, 1, 2, 3)),), (Slot("1", (0, 1, 2, 3)),)),))
    with pytest.raises(torch.OutOfMemoryError):
        compact(network, grouping, {"0": [0]}, inputs)


def test_network_that_the_tracer_cannot_follow_has_all_groups_refused() -> None:
    class _Deciding(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(inputs).argmax(dim=1)

    grouping = find_groups(_Deciding(nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, 4))
    assert grouping.names == ()
    assert set(grouping.refused) == {"0", "1"}
    assert all("does not depend on it" in reason for reason in grouping.refused.values())


def test_network_whose_graph_never_ends_being_built_has_all_groups_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _Endless(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            while torch.is_grad_enabled():  # as the tracer runs it, and nothing before
                inputs = inputs + 0
            return super().forward(inputs)

    monkeypatch.setattr(tracing, "MAX_TRACING_S", 0.2)
    grouping = find_groups(_Endless(nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, 4))
    assert grouping.names == ()
    reason = "the network takes too long to trace: more than 0.2 s"
    assert grouping.refused == {"0": reason, "1": reason}


def test_groups_do_not_depend_on_the_weights() -> None:
    network, inputs = build_case("residual")
    silent = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in silent.parameters():
            parameter.zero_()
    assert find_groups(silent, torch.zeros_like(inputs)) == find_groups(network, inputs)


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    network, inputs = build_case("depthwise")
    network(inputs).sum().backward()
    network.train()
    network.bn_expand.eval()
    network.head.requires_grad_(False)
    before = take_snapshot(network)
    find_groups(network, inputs)
    assert_same(before, take_snapshot(network))


def test_dropout_of_a_network_in_training_mode_does_not_hide_its_groups() -> None:
    network = nn.Sequential(
        nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 2)
    )
    assert find_groups(network.train(), torch.zeros(2, 4)).names == ("0", "2")


def test_groups_are_found_without_gradients_and_on_a_frozen_network() -> None:
    network, inputs = build_case("residual")
    expected = find_groups(network, inputs)
    with torch.no_grad():
        assert find_groups(network.requires_grad_(False), inputs) == expected


def test_nothing_leaks_from_one_network_to_the_next_in_one_process() -> None:
    alone = {name: find_groups(*build_case(name)) for name in CASES}
    for order in (list(CASES), list(reversed(CASES)), ["scaled", "mlp", "scaled", "lenet", "scaled"]):
        for name in order:
            assert find_groups(*build_case(name)) == alone[name]


def test_finding_groups_draws_nothing_from_the_global_generator() -> None:
    network, inputs = build_case("lenet")
    before = torch.random.get_rng_state()
    find_groups(network, inputs)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_warnings_of_the_tracer_do_not_reach_the_caller() -> None:
    class _Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = build_mlp()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layers(inputs) * self.temperature

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        grouping = find_groups(_Scaling(), torch.zeros(2, 4))
    assert seen == []
    assert grouping.names == ("layers.0", "layers.2")


def test_excluded_layers_keep_their_groups_whole() -> None:
    network, inputs = build_case("residual")
    grouping = find_groups(network, inputs, exclude=["conv_a2"])
    assert grouping.names == ("conv_a1", "conv_b1")
    assert grouping.refused == {"stem": "excluded by request"}
    with pytest.raises(ConfigurationError, match=r"no layer 'conv_a3' to exclude; did you mean 'conv_a2'\?"):
        find_groups(network, inputs, exclude=["conv_a3"])


def test_example_input_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match=r"inputs of shape \(2, 3, 28, 28\), got RuntimeError"):
        find_groups(LeNet5(), torch.zeros(4, 3, 28, 28))


def test_grouping_is_plain_data_that_pickles_and_keeps_its_fingerprint() -> None:
    grouping = find_groups(*build_case("concatenating"))
    restored: Grouping = pickle.loads(pickle.dumps(grouping))
    assert restored == grouping
    assert restored.fingerprint() == grouping.fingerprint()
    others = {name: find_groups(*build_case(name)) for name in ("lenet", "residual", "mlp", "rows")}
    assert len({grouping.fingerprint() for grouping in others.values()}) == 3
    assert others["mlp"].fingerprint() == others["rows"].fingerprint()  # the same layers, another input


def test_unknown_group_is_answered_with_the_nearest_name() -> None:
    grouping = find_groups(*build_case("lenet"))
    with pytest.raises(KeyError, match="did you mean 'conv2'"):
        grouping["conv9"]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv9": [0]}, "unknown channel group 'conv9'; did you mean"),
        ({"conv1": []}, "at least one, got \\[\\]"),
        ({"conv1": [0, 4]}, "between 0 and 3"),
        ({"conv1": [-1]}, "between 0 and 3"),
        ({"conv1": [1, 1]}, "expected distinct channels"),
    ],
)
def test_kept_channels_that_do_not_fit_are_one_clear_line(kept: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        find_groups(*build_case("lenet")).checked_kept(kept)


def test_segmentation_network_is_cut_through_its_skip_connection() -> None:
    grouping = find_groups(Segmenting(), torch.zeros(2, 1, 8, 8))
    consumers = {slot.module: slot.channel_of for slot in grouping["encode1"].consumers}
    assert consumers["classify"] == (-1,) * 5 + (0, 1, 2, 3)


def test_copies_of_the_network_are_gone_as_soon_as_its_groups_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[weakref.ref[nn.Module]] = []

    def copy_and_note(network: nn.Module) -> nn.Module:
        found = copy_for_evaluation(network)
        copied.extend(map(weakref.ref, found.modules()))
        return found

    monkeypatch.setattr(tracing, "copy_for_evaluation", copy_and_note)
    network, inputs = build_case("residual")
    gc.disable()  # what holds itself in circles would go at some time
    try:
        assert find_groups(network, inputs).groups
        assert copied
        assert not [module() for module in copied if module() is not None]
    finally:
        gc.enable()
