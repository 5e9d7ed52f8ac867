"""What comes before a group's consumers: computed node by node, and handed on to the groups behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from dirprune.importance.coalitions.graph import find_needed


class Prefix:
    """Computes some nodes of a traced network from its input, or from nodes that are known already.

    Args:
        traced: A network with one input.
        wanted: The nodes.

    Attributes:
        largest: Bytes of the largest tensor that the last call computed.
    """

    largest = 0

    def __init__(self, traced: fx.GraphModule, wanted: Sequence[fx.Node]) -> None:
        self.wanted = tuple(wanted)
        self._nodes = list(traced.graph.nodes)
        self._interpreter = fx.Interpreter(traced, garbage_collect_values=False)

    def __call__(self, inputs: Tensor, known: Mapping[fx.Node, Tensor] | None = None) -> list[Tensor]:
        """Return the values of the wanted nodes.

        Args:
            inputs: Shape (n, ...).
            known: Values of some nodes on these inputs; what follows may write in them.
        """
        known = known or {}
        needed = find_needed(self.wanted, set(known))
        order = [node for node in self._nodes if node in needed]
        last_use = {before: node for node in order for before in node.all_input_nodes}
        values = self._interpreter.env = dict(known)
        self.largest = 0
        for node in order:
            value = inputs if node.op == "placeholder" else self._interpreter.run_node(node)
            values[node] = value
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel() * value.element_size())
            for before in node.all_input_nodes:
                if last_use[before] is node and before not in self.wanted:
                    values.pop(before, None)
        self._interpreter.env = {}
        return [values[node] for node in self.wanted]


class Handover:
    """Keeps what entered the last group's consumer, so that the groups behind it start from there.

    Args:
        n_examples: Examples that there are in all.
        n_bytes: What is kept may take.

    Attributes:
        known: Values of nodes on all examples; replaced as a whole, never written in.
    """

    def __init__(self, n_examples: int, n_bytes: int) -> None:
        self.n_examples, self.n_bytes = n_examples, n_bytes
        self.known: dict[fx.Node, Tensor] = {}
        self._nodes: tuple[fx.Node, ...] = ()
        self._parts: list[list[Tensor]] = []
        self._n_collected = 0

    def collect(self, nodes: tuple[fx.Node, ...], start: int, values: Sequence[Tensor]) -> None:
        """Take the values of nodes on some examples; they are known when all examples were seen in order."""
        if start == 0:
            self._nodes, self._parts, self._n_collected = nodes, [], 0
        n_rows = len(values[0])
        is_next = nodes == self._nodes and start == self._n_collected
        if not is_next or any(len(value) != n_rows for value in values):
            self._nodes = ()
            return
        n_bytes = sum(value.numel() * value.element_size() for value in values)
        if n_bytes * self.n_examples > self.n_bytes * n_rows:
            self._nodes = ()
            return
        self._parts.append([value.clone() for value in values])
        self._n_collected += n_rows
        if self._n_collected == self.n_examples:
            columns = zip(*self._parts, strict=True)
            self.known = dict(zip(nodes, (torch.cat(column) for column in columns), strict=True))
            self._nodes, self._parts = (), []
