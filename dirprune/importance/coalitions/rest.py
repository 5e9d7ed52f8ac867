"""What follows a group's consumer, brought into the form that costs least for each coalition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from dirprune.importance.coalitions.graph import (
    ADDITIONS,
    asks_for_shape,
    extract,
    find_downstream,
    get_module,
    is_affine,
    is_identity,
    is_rectifier,
    read_pooling,
)
from dirprune.layers import CONVOLUTIONS

LARGEST_MATRIX = 4_000_000


class Rest:
    """The network behind one layer, as: add, max-pool, rectify, and then a graph or a single matrix.

    Args:
        traced: The whole network.
        start: The layer's node.

    Attributes:
        added: Nodes whose values are added to the layer's output first; they do not depend on it.
        pooling: Kernel of the max-pooling that follows, or None.
        is_rectified: Whether ReLU follows; it commutes with max-pooling.
        beside: Nodes that the rest of the graph needs and that do not depend on the layer's output.
    """

    def __init__(self, traced: fx.GraphModule, start: fx.Node) -> None:
        self.traced = traced
        self.downstream = find_downstream([start])
        self.added: list[fx.Node] = []
        self.pooling: tuple[int, int] | None = None
        self.is_rectified = False
        self.last = start
        while self._take_next():
            pass
        output = next(node for node in traced.graph.nodes if node.op == "output")
        self.output = output.args[0]
        behind = find_downstream([self.last]) - {self.last}
        self.beside = find_beside(traced, behind, {self.last})
        self.graph = extract(traced, [self.last, *self.beside], [self.output])
        self.has_nodes = self.last is not self.output
        self.has_convolutions = any(isinstance(get_module(traced, node), CONVOLUTIONS) for node in behind)
        self._behind = behind
        self.matrix: Tensor | None = None
        self.offset: Tensor | None = None

    def _take_next(self) -> bool:
        """Move past the only node that uses the last one, if it is of a kind that is done beforehand."""
        users = list(self.last.users)
        if len(users) != 1 or users[0].op == "output":
            return False
        node = users[0]
        pooling = read_pooling(self.traced, node)
        if is_rectifier(self.traced, node):
            self.is_rectified = True
        elif pooling is not None and self.pooling is None:
            self.pooling = pooling
        elif self._is_addition_of_constant(node):
            self.added += [part for part in node.all_input_nodes if part is not self.last]
        elif not is_identity(self.traced, node):
            return False
        self.last = node
        return True

    def _is_addition_of_constant(self, node: fx.Node) -> bool:
        if node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
            return False
        if self.is_rectified or self.pooling is not None:
            return False
        others = [part for part in node.args if part is not self.last]
        return (
            len(others) == 1
            and isinstance(others[0], fx.Node)
            and others[0] not in self.downstream
            and others[0].op != "get_attr"
        )

    def multiply_out(self, shape: Sequence[int], like: Tensor) -> None:
        """Replace the graph by one matrix, where it is affine and that is not more work.

        An affine function is known from its values at zero and at the unit vectors: they are computed in
        float64 and rounded once.

        Args:
            shape: Of one example's values that enter the graph.
            like: Its type and device.
        """
        n_features = math.prod(shape)
        chain = self._behind - {self.last}
        is_chain = all(
            node.op == "output" or asks_for_shape(node) or is_affine(self.traced, node) for node in chain
        )
        if not is_chain or self.beside or n_features**2 > LARGEST_MATRIX:
            return
        exact = partial(functional_call, self.graph, to_float64(self.graph))
        zero = torch.zeros(1, *shape, dtype=torch.float64, device=like.device)
        units = torch.eye(n_features, dtype=torch.float64, device=like.device).reshape(-1, *shape)
        offset = exact(zero)[0]
        if offset.dim() != 2:
            return
        matrix = exact(units)[0] - offset
        n_multiplications = sum(
            layer.weight.numel()
            for layer in (get_module(self.traced, node) for node in chain)
            if isinstance(layer, nn.Linear)
        )
        if matrix.numel() <= max(n_multiplications, 1):
            self.matrix, self.offset = matrix.to(like), offset.to(like)

    def __call__(self, values: Tensor, beside: Sequence[Tensor]) -> Tensor:
        """Return the network's outputs from values behind pooling and ReLU, one row for each example."""
        if self.matrix is not None and self.offset is not None:
            return torch.addmm(self.offset, values.flatten(1), self.matrix)
        return self.graph(values, *beside)[0]


def to_float64(graph: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a graph, those of floating point in float64."""
    tensors = [*graph.named_parameters(), *graph.named_buffers()]
    return {path: value.double() if value.is_floating_point() else value for path, value in tensors}


def find_beside(traced: fx.GraphModule, behind: set[fx.Node], known: set[fx.Node]) -> list[fx.Node]:
    """Return the nodes that enter a part of a graph from outside, constants left out.

    Args:
        traced: The whole graph.
        behind: The nodes of the part.
        known: Nodes that enter it anyway.
    """
    entering = {before for node in behind for before in node.all_input_nodes} - behind - known
    return [node for node in traced.graph.nodes if node in entering and node.op != "get_attr"]
