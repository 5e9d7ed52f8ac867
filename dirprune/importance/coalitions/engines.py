"""Two ways to run many coalitions at once: one matrix product over contributions, and cached prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from dirprune.groups import Slot
from dirprune.importance.base import ScoringContext
from dirprune.importance.coalitions.contributions import Contributions
from dirprune.importance.coalitions.graph import (
    extract,
    find_calls,
    find_downstream,
    get_module,
)
from dirprune.importance.coalitions.judge import Judge
from dirprune.importance.coalitions.prefix import Prefix
from dirprune.importance.coalitions.rest import Rest, find_beside
from dirprune.importance.coalitions.tiles import TiledValues
from dirprune.layers import CONVOLUTIONS

N_WHEN_PREPARED = 3
"""Times that the contributions are there at once while they are prepared."""


class ContributionValues(TiledValues):
    """Values by one matrix product [coalitions, channels + 1] x [channels + 1, outputs of the consumer].

    The consumer's output is a sum of one contribution per channel plus a constant, into which goes whatever
    is added to it from beside (the shortcut of a residual block). Max-pooling is the maximum over as many
    products as its window has places; what follows ReLU and is affine is multiplied out to one matrix.

    Args:
        context: What is scored, on its device.
        group: Name of a group with one consumer.
        judge: From outputs to values.
        traced: The network from `graph.trace`, in which other groups are cut.
        slot: Where the group enters its consumer.
        call: The node that calls the consumer.

    Attributes:
        is_linear_to_the_end: Whether the network's outputs themselves are a sum of contributions.
    """

    is_linear_to_the_end = False

    def __init__(
        self,
        context: ScoringContext,
        group: str,
        judge: Judge,
        traced: fx.GraphModule,
        slot: Slot,
        call: fx.Node,
    ) -> None:
        super().__init__(context, group, judge, traced)
        layer = get_module(traced, call)
        assert layer is not None
        self.contributions = Contributions(layer, slot, self.n_channels)
        self.rest = Rest(traced, call)
        self.has_convolutions = self.rest.has_convolutions
        self.prefix = Prefix(traced, [get_source(call), *self.rest.added, *self.rest.beside])
        self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        """Find out how large things are on one example.

        Raises:
            ValueError: If its contributions take more memory than there is, which is known before they are.
        """
        entering = self.enter_first()
        n_bytes = count_bytes([self.contributions.layer(entering[0])]) * (self.n_channels + 1)
        n_preparing = max(2 * self.prefix.largest, N_WHEN_PREPARED * n_bytes)
        if not self.fits(n_preparing):
            raise ValueError(f"the contributions of one example take {n_bytes >> 20:,} MiB")
        parts = self._take_apart(entering)
        tensors = self._arrange(parts, entering)
        values = self._sum_up(tensors, torch.ones(1, self.n_channels).to(tensors[0]))
        self.rest.multiply_out(values.shape[1:], values)
        is_plain = self.rest.pooling is None and not self.rest.is_rectified
        is_output = not self.rest.has_nodes and values.dim() == 2
        self.is_linear_to_the_end = is_plain and (self.rest.matrix is not None or is_output)
        if self.is_linear_to_the_end:
            tensors = self._arrange(parts, entering)
            values = tensors[0][-1]
        self.shared = max(count_bytes(tensors), n_preparing)
        self.largest = values.element_size() * values.numel()
        if self.rest.matrix is None and self.rest.has_nodes:
            beside = tensors[self._n_phases :]
            self.largest = max(self.largest, measure_largest(self.rest.graph, [values, *beside]))

    @property
    def _n_phases(self) -> int:
        return 1 if self.rest.pooling is None else self.rest.pooling[0] * self.rest.pooling[1]

    def prepare(self, entering: list[Tensor]) -> list[Tensor]:
        """Return the contributions, one tensor for each place of the pooling window, and what is beside.

        A tensor of contributions has the shape (n_channels + 1, n, *features), where convolutions follow with
        the channels last; where the outputs are linear in them, (n_channels + 1, n_outputs, n).
        """
        return self._arrange(self._take_apart(entering), entering)

    def _take_apart(self, entering: list[Tensor]) -> Tensor:
        """Return the contributions to what follows, whatever is added there among the constant one."""
        parts = self.contributions.compute(entering[0])
        for added in entering[1 : 1 + len(self.rest.added)]:
            parts[-1] += added
        return parts

    def _arrange(self, parts: Tensor, entering: list[Tensor]) -> list[Tensor]:
        """Return contributions in the order in which they are read, and what is beside; see `prepare`."""
        if self.is_linear_to_the_end:
            return [self._multiply_out(parts)]
        phases = [parts]
        if self.rest.pooling is not None:
            height, width = self.rest.pooling
            n_high, n_wide = parts.shape[-2] // height, parts.shape[-1] // width
            cut = parts[..., : n_high * height, : n_wide * width]
            phases = [
                cut[..., row::height, column::width] for row in range(height) for column in range(width)
            ]
        self._feature_shape = phases[0].shape[2:]
        if self._is_channels_last:
            phases = [phase.movedim(2, -1) for phase in phases]
        return [*(phase.contiguous() for phase in phases), *entering[1 + len(self.rest.added) :]]

    def _multiply_out(self, parts: Tensor) -> Tensor:
        """Return the contributions to the network's outputs, shape (n_channels + 1, n_outputs, n)."""
        if self.rest.matrix is not None and self.rest.offset is not None:
            parts = parts.flatten(2) @ self.rest.matrix
            parts[-1] += self.rest.offset
        return parts.flatten(2).transpose(1, 2).contiguous()

    @property
    def _is_channels_last(self) -> bool:
        return self.rest.has_convolutions and len(self._feature_shape) == 3

    def _sum_up(self, tensors: list[Tensor], coalitions: Tensor) -> Tensor:
        """Return what enters the rest of the graph, shape (n_coalitions * n, *features)."""
        phases = tensors[: self._n_phases]
        n_examples = phases[0].shape[1]
        rows = with_constant(coalitions)
        total = self.multiply(rows, phases[0].flatten(1), "total")
        for phase in phases[1:]:
            torch.maximum(total, self.multiply(rows, phase.flatten(1), "phase"), out=total)
        if self.rest.is_rectified:
            total.clamp_min_(0)
        values = total.reshape(len(rows) * n_examples, *phases[0].shape[2:])
        return values.movedim(-1, 1) if self._is_channels_last else values

    def run(self, tensors: list[Tensor], coalitions: Tensor) -> Tensor:
        """Return the outputs of coalitions on prepared examples; see `TiledValues.run`."""
        if self.is_linear_to_the_end:
            rows = with_constant(coalitions)
            total = self.multiply(rows, tensors[0].flatten(1), "total")
            return total.reshape(len(rows), *tensors[0].shape[1:]).transpose(1, 2)
        values = self._sum_up(tensors, coalitions)
        beside = [repeat(tensor, len(coalitions)) for tensor in tensors[self._n_phases :]]
        outputs = self.rest(values, beside)
        return outputs.reshape(len(coalitions), -1, *outputs.shape[1:])


class PrefixValues(TiledValues):
    """Values by masking where the group enters its consumers; what comes before is computed once.

    Args:
        context: What is scored, on its device.
        group: Name of the channel group.
        judge: From outputs to values.
        traced: The network from `graph.trace`, in which other groups are cut; it belongs to this object.
    """

    def __init__(self, context: ScoringContext, group: str, judge: Judge, traced: fx.GraphModule) -> None:
        super().__init__(context, group, judge, traced)
        slots = context.grouping[group].consumers
        masked: dict[fx.Node, list[str]] = {}
        for number, slot in enumerate(slots):
            path = f"mask_{number}"
            layer = traced.get_submodule(slot.module)
            traced.add_submodule(path, _Mask(slot, axis=-1 if isinstance(layer, nn.Linear) else 1))
            for call in find_calls(traced, slot.module):
                masked.setdefault(call, []).append(path)
        rows = traced.graph.placeholder("rows")
        output = next(node for node in traced.graph.nodes if node.op == "output").args[0]
        behind = find_downstream(masked)
        beside = find_beside(traced, behind, set())

        def mask_input(
            graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]
        ) -> dict[fx.Node, fx.Node]:
            if node not in masked:
                return {}
            source = get_source(node)
            entering = copies[source]
            for path in masked[node]:
                entering = graph.call_module(path, (entering, copies[rows]))
            return {source: entering}

        self.prefix = Prefix(traced, beside)
        self.rest = extract(traced, [rows, *beside], [output], mask_input)
        self.has_convolutions = any(isinstance(module, CONVOLUTIONS) for module in self.rest.modules())
        self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        """Find out how large things are on one example."""
        tensors = self.enter_first()
        self.shared = max(count_bytes(tensors), 2 * self.prefix.largest)
        rows = torch.ones(1, self.n_channels + 1).to(tensors[0])
        self.largest = measure_largest(self.rest, [rows, *tensors])

    def prepare(self, entering: list[Tensor]) -> list[Tensor]:
        """Return what enters the part of the network that depends on the group."""
        return entering

    def run(self, tensors: list[Tensor], coalitions: Tensor) -> Tensor:
        """Return the outputs of coalitions on prepared examples; see `TiledValues.run`."""
        n_coalitions, n_examples = len(coalitions), len(tensors[0])
        rows = with_constant(coalitions)
        outputs = self.rest(
            rows.repeat_interleave(n_examples, dim=0), *(repeat(tensor, n_coalitions) for tensor in tensors)
        )[0]
        return outputs.unflatten(0, (n_coalitions, n_examples))


class _Mask(nn.Module):
    """Multiplies the positions of a slot by the row of its example."""

    index: Tensor

    def __init__(self, slot: Slot, axis: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(slot.channel_of))
        self.axis = axis

    def forward(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return the masked values; `rows` has the shape (n, n_channels + 1) with a one at the end."""
        shape = [len(values)] + [1] * (values.dim() - 1)
        shape[self.axis] = -1
        return values * rows[:, self.index.to(rows.device)].reshape(shape)


def count_bytes(tensors: Sequence[Tensor]) -> int:
    """Return the memory of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def with_constant(coalitions: Tensor) -> Tensor:
    """Return coalitions with a column of ones behind, for what is always there."""
    return torch.cat([coalitions, coalitions.new_ones(len(coalitions), 1)], dim=1)


def repeat(values: Tensor, n_coalitions: int) -> Tensor:
    """Return the values of n examples once for each coalition, shape (n_coalitions * n, ...)."""
    return values.repeat(n_coalitions, *[1] * (values.dim() - 1))  # always a copy: what follows may write


def get_source(call: fx.Node) -> fx.Node:
    """Return the node whose value a layer is called with."""
    source = call.args[0] if call.args else call.kwargs["input"]
    assert isinstance(source, fx.Node)
    return source


def measure_largest(graph: fx.GraphModule, arguments: Sequence[Tensor]) -> int:
    """Return the bytes of the largest tensor on the way through a graph."""
    recorder = _SizeRecorder(graph)
    recorder.run(*arguments)
    return recorder.largest


class _SizeRecorder(fx.Interpreter):
    """Runs a graph and remembers the bytes of its largest tensor."""

    largest = 0

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel() * result.element_size())
        return result
