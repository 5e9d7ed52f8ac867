"""Networks and contexts on which scores are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.data.roles import Split
from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance import (
    Scorer,
    ScoringContext,
    Selector,
    compute_scores,
    create,
    get_method,
    list_methods,
)
from dirprune.importance.simplex.scorers import SimplexSwitches
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.networks_for_tests import Narrow, Residual, SmallLeNet

SHAPES = {SmallLeNet: (1, 14, 14), Residual: (3, 8, 8), Narrow: (1, 8, 8)}
QUICK_OPTIONS: dict[str, dict[str, int]] = {
    name: {"steps": 20} if issubclass(get_method(name).factory, SimplexSwitches) else {}
    for name in list_methods()
}
"""Fits are short where it does not matter how good the scores are."""


def create_quickly(name: str) -> Scorer | Selector:
    return create(name, QUICK_OPTIONS[name])


def make_context(
    kind: type[nn.Module] = SmallLeNet, n_examples: int = 96, seed: int = 0, ratio: float = 1.0
) -> ScoringContext:
    """Return a context with random weights and inputs, and the network's own classes as targets.

    Args:
        ratio: How much each channel of a group counts beside the one before it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind().eval()
        inputs = torch.randn(n_examples, *SHAPES[kind])
    grouping = find_groups(network, inputs[:2])
    spread_(network, grouping, ratio)
    with torch.no_grad():
        outputs = network(inputs)
        targets = (outputs - outputs.mean(0)).argmax(1)
    return ScoringContext(network, grouping, make_split(inputs, targets), identity, make_task(), seed)


def make_split(inputs: Tensor, targets: Tensor) -> Split:
    return Split(inputs, targets, torch.arange(len(inputs)), "train")


def identity(inputs: Tensor) -> Tensor:
    return inputs


def linear_case(
    weights: Sequence[float], n_examples: int = 64, task: str = "mse", seed: int = 0
) -> ScoringContext:
    """Return the network x -> sum_c weights[c] * x[c] with one group of channels, channel c being input c.

    The inputs are independent standard normal, the targets are the outputs of the network itself.
    """
    n_channels = len(weights)
    network = nn.Sequential(
        nn.Linear(n_channels, n_channels, bias=False), nn.Linear(n_channels, 1, bias=False)
    )
    network[0].weight.data = torch.eye(n_channels)
    network[1].weight.data = torch.tensor([list(weights)], dtype=torch.float32)
    inputs = torch.randn(n_examples, n_channels, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        targets = network(inputs)
    own = tuple(range(n_channels))
    grouping = Grouping((ChannelGroup("0", n_channels, (Slot("0", own),), (Slot("1", own),)),))
    return ScoringContext(
        network.eval(), grouping, make_split(inputs, targets), identity, make_task(task, "mse"), seed
    )


def evidence_case(weights: Sequence[float], n_examples: int = 1000) -> ScoringContext:
    """Return a two-class network whose channel c speaks for the right class, weights[c] telling how much."""
    targets = torch.arange(n_examples) % 2
    inputs = (2.0 * targets - 1).unsqueeze(1).expand(n_examples, len(weights)).contiguous()
    context = linear_case(weights)
    speak = torch.tensor([[-weight for weight in weights], list(weights)])
    context.network[1] = nn.Linear(len(weights), 2, bias=False)  # type: ignore[operator]
    context.network[1].weight.data = speak / 2  # type: ignore[index]
    return dataclasses.replace(
        context, network=context.network.eval(), calibration=make_split(inputs, targets), task=make_task()
    )


def score(name: str, context: ScoringContext, options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    return compute_scores(create(name, options), context)  # type: ignore[arg-type]


def spread_(network: nn.Module, grouping: Grouping, ratio: float) -> None:
    """Scale the weights that take a group's channels by ratio ** channel, in place."""
    for group in grouping.groups:
        factors = ratio ** torch.arange(group.n_channels).float()
        for slot in group.consumers:
            layer = network.get_submodule(slot.module)
            by_position = torch.cat([factors, torch.ones(1)])[list(slot.channel_of)]
            layer.weight.data *= by_position.reshape(1, -1, *[1] * (layer.weight.dim() - 2))


def permute_(network: nn.Module, group: ChannelGroup, order: Sequence[int]) -> None:
    """Reorder a group's channels in place so that channel k is what was channel order[k]."""
    for slots, axis in ((group.producers, 0), (group.consumers, 1)):
        for slot in slots:
            places: dict[int, list[int]] = {}
            for place, channel in enumerate(slot.channel_of):
                places.setdefault(channel, []).append(place)
            source = list(range(len(slot.channel_of)))
            for channel, old in enumerate(order):
                for place, taken in zip(places[channel], places[old], strict=True):
                    source[place] = taken
            module = network.get_submodule(slot.module)
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.dim() > axis:
                    tensor.data = tensor.data.index_select(axis, torch.tensor(source))


def silence_(network: nn.Module, group: ChannelGroup, channels: Sequence[int]) -> None:
    """Set everything that makes some channels to zero, batch norm's affine part included, in place."""
    for slot in group.producers:
        for tensor in network.get_submodule(slot.module).state_dict().values():
            if tensor.dim() > 0:
                tensor[[channel in channels for channel in slot.channel_of]] = 0


def ignore_(network: nn.Module, group: ChannelGroup, channels: Sequence[int]) -> None:
    """Set all weights that take some channels to zero, in place."""
    for slot in group.consumers:
        network.get_submodule(slot.module).weight.data[:, [c in channels for c in slot.channel_of]] = 0
