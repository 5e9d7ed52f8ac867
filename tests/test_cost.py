"""Costs: golden numbers worked out by hand, and the model equals a count on the real compact network."""

from __future__ import annotations

import copy
import functools
import pickle
import time

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dirprune.cost import CostModel, Costs, count_costs
from dirprune.errors import ArchitectureError, ConfigurationError
from dirprune.groups import Grouping
from dirprune.networks.lenet import LeNet5
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from tests.networks_for_tests import CASES, LayerNormed, build_case

IMAGE = torch.zeros(1, 1, 28, 28)


@functools.cache
def prepare(name: str) -> tuple[nn.Module, Tensor, Grouping, CostModel]:
    network, inputs = (LeNet5(), IMAGE) if name == "lenet5" else build_case(name)
    grouping = find_groups(network, inputs)
    return network, inputs, grouping, CostModel(network, grouping, inputs)


@pytest.mark.parametrize(
    ("widths", "macs"),
    [
        ((10, 20, 100, 25), 498_750),
        ((8, 20, 50, 20), 388_400),
        ((8, 9, 36, 17), 236_366),
        ((7, 10, 40, 20), 220_200),
        ((6, 7, 34, 16), 158_112),
    ],
)
def test_macs_of_lenet5_are_the_golden_numbers(widths: tuple[int, ...], macs: int) -> None:
    _, _, grouping, model = prepare("lenet5")
    costs = model.costs(dict(zip(grouping.names, widths, strict=True)))
    assert costs.macs == macs
    assert costs == count_costs(LeNet5(widths), IMAGE)


def test_parameters_of_lenet5_are_the_golden_numbers() -> None:
    _, _, grouping, model = prepare("lenet5")
    assert model.costs(grouping.n_channels) == Costs(macs=498_750, parameters=40_225)
    small = model.costs({"conv1": 6, "conv2": 7, "linear1": 34, "linear2": 16})
    assert small.parameters - 2 * (6 + 7) == 5_785  # without batch norm


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "parameters"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 8, 8), 4 * 4 * 8 * 3 * 9, 8 * 3 * 9 + 8),
        (nn.Conv2d(2, 4, 3, dilation=2, bias=False), (2, 8, 8), 4 * 4 * 4 * 2 * 9, 4 * 2 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5), 3 * 3 * 6 * 2 * 9, 6 * 2 * 9 + 6),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 5, 5), 25 * 6 * 9, 6 * 9 + 6),
        (nn.ConvTranspose2d(3, 2, 2, stride=2), (3, 4, 4), 16 * 3 * 2 * 4, 3 * 2 * 4 + 2),
        (nn.Conv1d(2, 5, 3), (2, 10), 8 * 5 * 2 * 3, 5 * 2 * 3 + 5),
        (nn.Linear(7, 5), (7,), 35, 40),
        (nn.Linear(7, 5), (3, 7), 3 * 35, 40),
    ],
)
def test_macs_of_single_layers_worked_out_by_hand(
    layer: nn.Module, shape: tuple[int, ...], macs: int, parameters: int
) -> None:
    assert count_costs(nn.Sequential(layer), torch.zeros(4, *shape)) == Costs(macs, parameters)


@pytest.mark.parametrize("name", [*CASES, "lenet5"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_costs_without_building_equal_costs_of_the_compact_network(name: str, data: st.DataObject) -> None:
    network, inputs, grouping, model = prepare(name)
    kept = {
        group: data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True), label=group)
        for group, n in grouping.n_channels.items()
    }
    computed = model.costs({group: len(indices) for group, indices in kept.items()})
    assert computed == count_costs(compact(network, grouping, kept, inputs), inputs)


def test_refused_groups_cost_what_they_cost() -> None:
    network, inputs = LayerNormed(), torch.zeros(2, 4)
    grouping = find_groups(network, inputs)
    costs = CostModel(network, grouping, inputs).costs({"second": 2})
    assert costs == Costs(macs=4 * 6 + 6 * 2 + 2 * 2, parameters=24 + 6 + 2 * 6 + 12 + 2 + 4 + 2)


def test_layer_used_twice_costs_its_macs_twice_and_its_parameters_once() -> None:
    layer = nn.Linear(4, 4)
    network = nn.Sequential(layer, nn.ReLU(), layer)
    assert count_costs(network, torch.zeros(1, 4)) == Costs(macs=32, parameters=20)


def test_weights_shared_by_two_layers_count_once_in_the_model_too() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 2))
    network[1].weight = network[0].weight
    inputs = torch.zeros(1, 4)
    grouping = find_groups(network, inputs)
    assert grouping.names == ("2",)
    assert CostModel(network, grouping, inputs).costs({"2": 3}) == count_costs(network, inputs)


class _Attending(nn.Module):
    """Attention between sequences of different lengths and widths, called with names, in any layout."""

    def __init__(self, is_batch_first: bool, has_batch: bool) -> None:
        super().__init__()
        self.is_batch_first, self.has_batch = is_batch_first, has_batch
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=is_batch_first, kdim=6, vdim=4)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        queries = self.second(torch.relu(self.first(inputs)))  # (batch, 5, 8)
        keys, values = queries[:, :3, :6], queries[:, :3, :4]
        if self.has_batch and not self.is_batch_first:
            queries, keys, values = (part.transpose(0, 1) for part in (queries, keys, values))
        if not self.has_batch:
            rows = [self.attention(q, k, value=v)[0] for q, k, v in zip(queries, keys, values, strict=True)]
            return self.head(torch.stack(rows))
        return self.head(self.attention(queries, value=values, key=keys, need_weights=False)[0])


def _encoder(is_batch_first: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8),
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=is_batch_first),
        nn.Linear(8, 3),
    )


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (_Attending(True, True), (5, 8)),
        (_Attending(False, True), (5, 8)),
        (_Attending(True, False), (5, 8)),
        (_encoder(True), (5, 4)),
        (_encoder(False), (5, 4)),
    ],
    ids=["batch first", "length first", "unbatched", "encoder", "encoder, length first"],
)
@pytest.mark.parametrize("is_training", [False, True])
def test_projections_of_attention_cost_what_torch_counts(
    network: nn.Module, shape: tuple[int, ...], is_training: bool
) -> None:
    inputs = torch.randn(2, *shape)
    copied = copy.deepcopy(network).train()  # torch's counter does not know the fast path of evaluation
    with FlopCounterMode(display=False) as counter:
        copied(inputs[:1])
    counted = counter.get_flop_counts()["Global"]
    # Without bmm, attention's own products.
    of_layers = sum(n for kind, n in counted.items() if kind in (torch.ops.aten.mm, torch.ops.aten.addmm))
    costs = count_costs(network.train(is_training), inputs)
    assert costs.macs == of_layers // 2
    grouping = find_groups(network, inputs)
    assert CostModel(network, grouping, inputs).costs(grouping.n_channels) == costs
    kept = {name: [0, 2] for name in grouping.names}
    few = CostModel(network, grouping, inputs).costs(dict.fromkeys(grouping.names, 2))
    assert few == count_costs(compact(network, grouping, kept, inputs), inputs)
    assert (few.macs < costs.macs) == bool(grouping.groups)


class _SelfAttention(nn.MultiheadAttention):
    """Attention with a forward of its own, of one input."""

    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs, inputs, inputs)[0]


class _LayeredAttention(nn.MultiheadAttention):
    """Attention with a forward of its own, which calls layers, as that of torch.ao.nn.quantizable."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        queries, keys, values = self.layers[0](query), self.layers[1](key), self.layers[2](value)
        return self.layers[3]((queries @ keys.transpose(1, 2)).softmax(-1) @ values)


class _LayeredSelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _LayeredAttention(8)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, inputs, inputs)


def test_attention_with_a_forward_of_its_own_costs_what_its_layers_cost() -> None:
    inputs = torch.randn(2, 5, 8)
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8), _SelfAttention(8, 2))
    costs = count_costs(network, inputs)
    assert costs.macs == 5 * 2 * 6 * 8
    grouping = find_groups(network, inputs)
    assert CostModel(network, grouping, inputs).costs(grouping.n_channels) == costs
    assert count_costs(_LayeredSelfAttention(), inputs).macs == 4 * 5 * 8 * 8


def test_costs_of_attention_take_one_pass() -> None:
    n_passes = 0

    class _Counted(nn.MultiheadAttention):
        def __call__(self, *inputs: Tensor, **named: Tensor) -> Tensor:
            nonlocal n_passes
            n_passes += 1
            return super().__call__(*inputs, **named)

    network = _Attending(True, True)
    network.attention = _Counted(8, 2, batch_first=True, kdim=6, vdim=4)
    count_costs(network, torch.zeros(2, 5, 8))
    assert n_passes == 1


def test_attention_of_a_vision_transformer_counts() -> None:
    network = torchvision.models.vit_b_16(weights=None)
    n_tokens, width = 197, 768
    projections = 12 * 4 * n_tokens * width**2
    multilayer = 12 * 2 * n_tokens * width * 3072
    costs = count_costs(network, torch.zeros(1, 3, 224, 224))
    assert costs.macs == projections + multilayer + 196 * 3 * 16**2 * width + width * 1000


def test_frozen_parameters_count_and_counting_changes_nothing() -> None:
    network = LeNet5().requires_grad_(False).train()
    assert count_costs(network, IMAGE).parameters == 40_225
    assert network.training
    assert network.bn1.num_batches_tracked == 0


def test_costs_are_plain_integers_by_name() -> None:
    _, _, grouping, model = prepare("lenet5")
    costs = pickle.loads(pickle.dumps(model)).costs(grouping.n_channels)
    assert costs.as_dict() == {"macs": 498_750, "parameters": 40_225}
    assert {type(value) for value in costs.as_dict().values()} == {int}


def test_costs_of_an_architecture_of_lenet5_take_microseconds() -> None:
    _, _, grouping, model = prepare("lenet5")
    architecture = grouping.n_channels
    fastest = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        model.costs(architecture)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 50e-6


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"conv1": 10, "conv2": 20, "linear1": 100}, "1 to 25 kept channels of 'linear2', got none"),
        ({"conv1": 0, "conv2": 20, "linear1": 100, "linear2": 25}, "1 to 10 kept channels of 'conv1', got 0"),
        ({"conv1": 11, "conv2": 20, "linear1": 100, "linear2": 25}, "got 11"),
        (
            {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25, "linear3": 5},
            "no channel group 'linear3'; did you mean",
        ),
    ],
)
def test_architecture_that_does_not_fit_is_one_clear_line(architecture: dict[str, int], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        prepare("lenet5")[3].costs(architecture)


def test_example_input_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match=r"inputs of shape \(1, 3, 28, 28\)"):
        count_costs(LeNet5(), torch.zeros(1, 3, 28, 28))
