"""MACs and parameters: counted on a network, or computed for an architecture that nobody has built."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from torch import Tensor, nn

from dirprune.errors import ArchitectureError, ConfigurationError, suggest
from dirprune.groups import Grouping
from dirprune.layers import copy_for_evaluation, is_plain_attention, record_layers

COST_METRICS = ("macs", "parameters")
"""The names of the costs that are counted, wherever metrics are named."""
LATENCY = "latency_ms"
"""The name of the cost that is modelled from measurements."""


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        macs: Multiply-accumulates of convolutions, linear layers and the projections of attention for one
            input; no bias, no batch norm.
        parameters: All parameters that training can change, whether frozen at the moment or not; shared ones
            count once.
        latency_ms: Wall time of one batch in milliseconds; None where it was not asked for.
    """

    macs: int
    parameters: int
    latency_ms: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the costs that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def count_costs(network: nn.Module, example_input: Tensor) -> Costs:
    """Count MACs and parameters of a network as it is; it is not touched.

    Args:
        network: Any network. The projections of `nn.MultiheadAttention` are in the MACs; attention's own
            products (of queries with keys, and of what follows with values), recurrent layers and functional
            calls are not: see `dirprune.uncounted`.
        example_input: One batch, shape (batch, ...), of which the first example is used. One with padding
            costs less than a whole one where `nn.TransformerEncoder` leaves out what its mask marks.
    Raises:
        ConfigurationError: If the network fails on the example input.
    """
    copied = copy_for_evaluation(network)
    with _projections_counted(copied) as projections:
        calls = record_layers(copied, example_input[:1].detach().cpu())
    macs = sum(projections) + sum(
        call.n_positions * _weight(copied.get_submodule(call.path)).numel() for call in calls
    )
    return Costs(macs, sum(parameter.numel() for parameter in copied.parameters()))


@contextmanager
def _projections_counted(network: nn.Module) -> Iterator[list[int]]:
    """Give a list that takes the MACs of each call of torch's attention: projections of inputs and outputs.

    Their layers are never called: attention takes the weights and multiplies by itself.
    """
    found: list[int] = []

    def record(
        attention: nn.MultiheadAttention, inputs: tuple[Tensor, ...], named: dict[str, Tensor], _: Any
    ) -> None:
        given = {**dict(zip(("query", "key", "value"), inputs, strict=False)), **named}
        # Each is batch x length x width in some order, or without the batch; what leaves is as the query.
        entering = sum(given[name].numel() for name in ("query", "key", "value"))
        found.append((entering + given["query"].numel()) * attention.embed_dim)

    hooks = [
        module.register_forward_hook(record, with_kwargs=True)
        for module in network.modules()
        if is_plain_attention(module)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class CostModel:
    """Costs of every architecture of a network, computed from the shapes of its layers.

    Each layer costs a constant times the length of its output axis times the length of its input axis, and
    each length is a sum of kept channels (several, after a flatten or a concatenation). Written out, both
    costs are quadratic polynomials in the kept channels, which is all that this object keeps. The projections
    of attention, which cannot be cut, are a constant.
    """

    def __init__(self, network: nn.Module, grouping: Grouping, example_input: Tensor) -> None:
        """Record the layers' shapes in one pass over a copy of the network.

        Args:
            network: The uncut network that `grouping` was found on.
            grouping: Its channel groups.
            example_input: One batch, shape (batch, ...), of which the first example is used.
        Raises:
            ConfigurationError: If the network fails on the example input.
        """
        self.n_channels = grouping.n_channels
        self.channels_per_part = grouping.channels_per_part
        copied = copy_for_evaluation(network)
        lengths = _Lengths(grouping)
        macs: _Polynomial = {}
        parameters: _Polynomial = {}
        with _projections_counted(copied) as projections:
            calls = record_layers(copied, example_input[:1].detach().cpu())
        for call in calls:
            layer = copied.get_submodule(call.path)
            _add(macs, lengths.size_of(call.path, "weight", _weight(layer)), call.n_positions)
        if projections:
            _add(macs, {(lengths.one, lengths.one): 1}, sum(projections))
        seen: set[nn.Parameter] = set()
        for path, module in copied.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    _add(parameters, lengths.size_of(path, name, parameter), 1)
                seen.add(parameter)
        self._macs = [(factor, *pair) for pair, factor in macs.items()]
        self._parameters = [(factor, *pair) for pair, factor in parameters.items()]
        self._latency: tuple[float, Sequence[float]] | None = None

    def with_latency(self, constant_ms: float, rates_ms: Sequence[float]) -> CostModel:
        """Return a model that gives the latency as well.

        Args:
            constant_ms: What does not depend on the architecture.
            rates_ms: Milliseconds per MAC, in the order of `macs_by_pair`.
        Raises:
            ConfigurationError: If the rates are those of another network.
        """
        if len(rates_ms) != len(self._macs):
            raise ConfigurationError(
                f"expected a latency of {len(self._macs)} pairs of channel groups, got {len(rates_ms)}; "
                "was it measured on another network?"
            )
        model = copy.copy(self)
        model._latency = (constant_ms, tuple(rates_ms))
        return model

    def costs(self, architecture: Mapping[str, int]) -> Costs:
        """Compute the costs of an architecture; equals `count_costs` of the compact network exactly.

        Args:
            architecture: Kept channels of every group, from 1 to the group's channels.
        Raises:
            ArchitectureError: If a group is missing or unknown or its number of channels is out of range.
        """
        kept = self._read(architecture)
        macs = [factor * kept[i] * kept[j] for factor, i, j in self._macs]
        parameters = sum([factor * kept[i] * kept[j] for factor, i, j in self._parameters])
        if self._latency is None:
            return Costs(sum(macs), parameters)
        constant_ms, rates_ms = self._latency
        latency_ms = constant_ms + sum(rate * n for rate, n in zip(rates_ms, macs, strict=True))
        return Costs(sum(macs), parameters, latency_ms)

    def terms(self, metric: str) -> list[tuple[float, int, int]]:
        """Return a cost as a polynomial: (factor, i, j) is factor times the channels of groups i and j.

        Args:
            metric: "macs", "parameters" or "latency_ms".
        Returns:
            Groups are places in `n_channels`, i <= j; the place after the last stands for 1.
        Raises:
            ConfigurationError: If the cost is not known.
        """
        if metric == LATENCY and self._latency is not None:
            constant_ms, rates_ms = self._latency
            one = len(self.n_channels)
            pairs = zip(rates_ms, self._macs, strict=True)
            return [(constant_ms, one, one), *((rate * factor, i, j) for rate, (factor, i, j) in pairs)]
        known = {"macs": self._macs, "parameters": self._parameters}
        if metric not in known:
            raise ConfigurationError(f"unknown cost {metric!r}{suggest(metric, known)}")
        return list(known[metric])

    def macs_by_pair(self, architecture: Mapping[str, int]) -> list[int]:
        """Compute the MACs of the layers in which the same two groups meet, always in the same order.

        Args:
            architecture: Kept channels of every group, from 1 to the group's channels.
        Raises:
            ArchitectureError: If a group is missing or unknown or its number of channels is out of range.
        """
        kept = self._read(architecture)
        return [factor * kept[i] * kept[j] for factor, i, j in self._macs]

    def _read(self, architecture: Mapping[str, int]) -> list[int]:
        """Return the kept channels of all groups in order, and a one behind them."""
        kept = []
        for name, n_channels in self.n_channels.items():
            n_kept = architecture.get(name, 0)
            if not 1 <= n_kept <= n_channels:
                raise ArchitectureError(
                    f"expected 1 to {n_channels} kept channels of {name!r}, "
                    f"got {architecture.get(name, 'none')}"
                )
            kept.append(n_kept)
        if len(architecture) != len(kept):
            unknown = next(name for name in architecture if name not in self.n_channels)
            raise ArchitectureError(f"no channel group {unknown!r}{suggest(unknown, self.n_channels)}")
        return [*kept, 1]


_Polynomial = dict[tuple[int, int], int]
"""Factors of products of two kept channels, by the groups' places; the place after the last stands for 1."""


def _weight(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def _add(total: _Polynomial, part: _Polynomial, times: int) -> None:
    for pair, factor in part.items():
        total[pair] = total.get(pair, 0) + times * factor


class _Lengths:
    """Lengths of parameters' axes as sums over groups: {place of the group: axis indices per channel}."""

    def __init__(self, grouping: Grouping) -> None:
        self.one = len(grouping.groups)
        self.n_channels = [*grouping.n_channels.values(), 1]
        self.outputs: dict[str, dict[int, int]] = {}
        self.inputs: dict[str, dict[int, int]] = {}
        for place, group in enumerate(grouping.groups):
            for slots, axes in ((group.producers, self.outputs), (group.consumers, self.inputs)):
                for slot in slots:
                    length = axes.setdefault(slot.module, {self.one: len(slot.channel_of)})
                    n_indices = sum(channel >= 0 for channel in slot.channel_of)
                    length[place] = length.get(place, 0) + n_indices // group.n_channels
                    length[self.one] -= n_indices

    def _full(self, length: Mapping[int, int]) -> int:
        return sum(indices * self.n_channels[place] for place, indices in length.items())

    def size_of(self, path: str, name: str, parameter: Tensor) -> _Polynomial:
        """Return the number of elements of a parameter of the module at `path`."""
        own_path = f"{path}.{name}" if path else name
        outputs = self.outputs.get(own_path, self.outputs.get(path, {self.one: 1}))
        inputs = self.inputs.get(path, {self.one: 1}) if name == "weight" else {self.one: 1}
        rest = parameter.numel() // (self._full(outputs) * self._full(inputs))
        size: _Polynomial = {}
        for i, per_output in outputs.items():
            for j, per_input in inputs.items():
                if per_output and per_input:
                    _add(size, {(min(i, j), max(i, j)): per_output * per_input}, rest)
        return size
