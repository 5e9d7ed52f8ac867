"""Goes through examples and coalitions in tiles, so that memory is bounded by what is allowed."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from dirprune.device import SHORTAGE_ERRORS, exact_products, is_out_of_memory
from dirprune.importance.base import ScoringContext
from dirprune.importance.coalitions.judge import Judge, are_classes
from dirprune.importance.coalitions.prefix import Handover, Prefix
from dirprune.importance.coalitions.values import Coalitions, CoalitionValues
from dirprune.importance.fresh_norm import count_in_part, find_fresh_norms, tell_no_statistics
from dirprune.importance.parts import Shortage, tell_shortage

TILE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Bytes of the largest intermediate result: on a CPU it should stay in the cache, a GPU wants much work."""
ROWS_PER_TILE = 32
FEW_ROWS_PER_TILE = 4
"""Coalitions for which a tile is made: with fewer it is not full. A matrix product needs many to be fast;
convolutions on a CPU do not, and only few are asked for at once where each of them takes long."""
LARGEST_CHUNK = 1024
BYTES_OF_FACTOR = 5
"""What a channel of a coalition takes on the device, as bool and as float32."""


@dataclass(frozen=True)
class Prepared:
    """What all coalitions share on some examples.

    Attributes:
        tensors: Whatever the engine needs, in its own order.
        targets: Shape (n_examples, ...).
        are_classes: Whether the targets are, see `judge.are_classes`.
    """

    tensors: list[Tensor]
    targets: Tensor
    are_classes: bool

    @property
    def n_bytes(self) -> int:
        """Memory of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


class TiledValues(CoalitionValues):
    """Prepares a chunk of examples once and runs a tile of coalitions on it at a time.

    Chunks that fit into half of the memory allowed are kept for the next call.

    Args:
        context: What is scored.
        group: Name of the channel group.
        judge: From outputs to values.
        traced: The network from `graph.trace`, in which other groups are cut.

    Attributes:
        prefix: Computes what enters `prepare`; set by each kind of engine.
        has_convolutions: Whether some are behind what is prepared; set likewise.
    """

    prefix: Prefix
    has_convolutions = False

    def __init__(self, context: ScoringContext, group: str, judge: Judge, traced: fx.GraphModule) -> None:
        self.context = context
        self.group = group
        self.n_channels = context.grouping[group].n_channels
        self.judge = judge
        self.device = torch.device(context.device)
        self.memory = context.memory_mb << 20
        self.tile_bytes = min(TILE_BYTES.get(self.device.type, TILE_BYTES["cpu"]), self.memory // 4)
        self.largest = 0  # bytes of one example's largest intermediate result, for one coalition
        self.shared = 0  # bytes that preparing one example takes, at its largest
        self.norms = find_fresh_norms(traced)
        self._kept: dict[int, Prepared] = {}
        self._scratch: dict[str, Tensor] = {}
        self.shortage = Shortage()
        self.handover: Handover | None = None
        self.known: Mapping[fx.Node, Tensor] = {}

    @abstractmethod
    def prepare(self, entering: list[Tensor]) -> list[Tensor]:
        """Return what all coalitions share on some examples, from the prefix's values on them."""

    @abstractmethod
    def run(self, tensors: list[Tensor], coalitions: Tensor) -> Tensor:
        """Return the outputs of coalitions on prepared examples.

        Args:
            tensors: From `prepare`, of n examples.
            coalitions: Shape (n_coalitions, n_channels), zeros and ones of the network's type.
        Returns:
            Shape (n_coalitions, n, ...); the next call may overwrite it.
        """

    def compute_outputs(
        self, inputs: Tensor, coalitions: Tensor, known: Mapping[fx.Node, Tensor] | None = None
    ) -> Tensor:
        """Return the outputs of all coalitions on all inputs, shape (n_coalitions, n, ...).

        As many at once as the memory allows; all inputs at once where batch norm takes statistics from them.

        Args:
            inputs: Shape (n, ...).
            coalitions: Shape (n_coalitions, n_channels).
            known: Values of nodes on these inputs, from `read_known`; everything is computed without.
        """
        size = len(inputs)
        if not self.norms:
            size = min(size, max(1, self.memory // (4 * max(self.shared, 1))))
        n_rows = max(1, self.memory // (4 * size * max(self.largest, 1)))
        outputs = []
        with torch.no_grad(), exact_products(self.device):
            for start in range(0, len(inputs), size):
                part = inputs[start : start + size]
                of_part = {node: values[start : start + size] for node, values in (known or {}).items()}
                tensors = self.prepare(self._enter(part, of_part))
                rows = coalitions.to(inputs).split(n_rows)
                # `run` may use its memory again.
                outputs.append(torch.cat([self._run(tensors, some, len(part)).clone() for some in rows]))
        return torch.cat(outputs, dim=1)

    def take_over(self, handover: Handover) -> None:
        """Start from what another group has left, and leave something for the next one."""
        self.handover = handover
        self.known = handover.known

    def start_small(self, shortage: Shortage) -> None:
        """Use as little memory as groups before this one had to, and let those behind it know of more."""
        self.shortage = shortage
        self.tile_bytes >>= shortage.n_halvings
        self.memory >>= shortage.n_halvings

    def read_known(self, start: int, stop: int) -> dict[fx.Node, Tensor]:
        """Return what other groups have left about some calibration examples, as a copy."""
        return {node: values[start:stop].clone() for node, values in self.known.items()}

    def _enter(self, inputs: Tensor, known: Mapping[fx.Node, Tensor] | None = None) -> list[Tensor]:
        for norm in self.norms:
            norm.n_coalitions = 1
        return self.prefix(inputs, known)

    def _run(self, tensors: list[Tensor], coalitions: Tensor, n_examples: int) -> Tensor:
        if len(coalitions) * n_examples == 1:  # of which `squeeze` would leave no row
            return self._run(tensors, coalitions.repeat(2, 1), n_examples)[:1]
        for norm in self.norms:
            norm.n_coalitions = len(coalitions)
        return self.run(tensors, coalitions)

    def enter_first(self) -> list[Tensor]:
        """Return the prefix's values on the first example.

        Raises:
            ValueError: If it is not one row for each example.
        """
        with torch.no_grad():
            tensors = self._enter(self.context.load(slice(0, 1))[0])
        if not all(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in tensors):
            raise ValueError("something else than tensors with a row for each example enters the rest")
        return tensors

    def fits(self, n_bytes: int) -> bool:
        """Return whether examples that take so much each can be prepared: one, or those of statistics."""
        return 4 * n_bytes * (self.chunk_size if self.norms else 1) <= self.memory

    @property
    def chunk_size(self) -> int:
        """Examples that are prepared at once; fixed where their statistics matter."""
        if self.norms:
            return count_in_part(len(self.context.calibration))
        are_few = self.has_convolutions and self.device.type == "cpu"
        n_rows = FEW_ROWS_PER_TILE if are_few else ROWS_PER_TILE
        by_tile = self.tile_bytes // (n_rows * max(self.largest, 1))
        by_memory = self.memory // (4 * max(self.shared, 1))
        return max(1, min(by_tile, by_memory, LARGEST_CHUNK, len(self.context.calibration)))

    @torch.no_grad()
    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        while True:
            try:
                with exact_products(self.device):
                    return self._go_through(torch.from_numpy(coalitions))
            except SHORTAGE_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(error)

    def _go_through(self, coalitions: Tensor) -> NDArray[np.float64]:
        """Return the values of coalitions, on the device in parts of an eighth of the memory.

        Args:
            coalitions: Shape (n_coalitions, n_channels), bool, on the CPU.
        """
        n_at_once = max(1, self.memory // (8 * BYTES_OF_FACTOR * self.n_channels))
        return np.concatenate([self._go_through_part(part) for part in coalitions.split(n_at_once)])

    def _go_through_part(self, coalitions: Tensor) -> NDArray[np.float64]:
        n_examples, size = len(self.context.calibration), self.chunk_size
        self.shared_s = self.repeated_s = 0.0
        coalitions = coalitions.to(self.device)
        totals = torch.zeros(len(coalitions), dtype=torch.float64, device=self.device)
        n_rows = max(1, self.tile_bytes // (size * max(self.largest, 1)))
        for start in range(0, n_examples, size):
            prepared = self._get_prepared(start, min(start + size, n_examples))
            factors = coalitions.to(prepared.tensors[0])
            for first in range(0, len(coalitions), n_rows):
                rows = factors[first : first + n_rows]
                outputs = self._run(prepared.tensors, rows, len(prepared.targets))
                totals[first : first + n_rows] += self.judge.sum_up_(
                    outputs, prepared.targets, prepared.are_classes
                )
        return (totals / n_examples).cpu().numpy()

    def multiply(self, rows: Tensor, columns: Tensor, place: str) -> Tensor:
        """Return a matrix product, each row of which does not depend on how many rows there are.

        On a CPU it lies in memory that the next product of this place overwrites: fresh memory comes in pages
        that the system fills with zeros first, which takes longer than a product with few channels.

        Args:
            rows: Shape (n_rows, n).
            columns: Shape (n, n_columns).
            place: Names the memory.
        """
        if len(rows) == 1:  # some libraries round the product of a single row in another way
            return self.multiply(rows.repeat(2, 1), columns, place)[:1]
        n_numbers = len(rows) * columns.shape[1]
        if self.device.type != "cpu" or rows.dtype != columns.dtype:
            return rows @ columns
        memory = self._scratch.get(place)
        if memory is None or memory.numel() < n_numbers or memory.dtype != rows.dtype:
            memory = self._scratch[place] = rows.new_empty(n_numbers)
        return torch.mm(rows, columns, out=memory[:n_numbers].view(len(rows), -1))

    def _get_prepared(self, start: int, stop: int) -> Prepared:
        if start in self._kept:
            return self._kept[start]
        began = time.perf_counter()
        inputs, targets = self.context.load(slice(start, stop))  # while a GPU is busy with those before
        loading_s = time.perf_counter() - began
        began = self._read_clock()
        entering = self._enter(inputs, self.read_known(start, stop))
        if self.handover is not None:
            self.handover.collect(self.prefix.wanted, start, entering)
        prepared = Prepared(self.prepare(entering), targets, are_classes(targets))
        n_chunks = -(-len(self.context.calibration) // self.chunk_size)
        if prepared.n_bytes * n_chunks <= self.memory // (2 if self.handover is None else 4):
            self._kept[start] = prepared
        seconds = loading_s + self._read_clock() - began
        self.shared_s += seconds
        self.repeated_s += 0.0 if start in self._kept else seconds
        return prepared

    def _read_clock(self) -> float:
        """Return the time in seconds when the device has done what it was told to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _shrink(self, error: Exception) -> None:
        """Halve the memory that is used, or give up."""
        if self.norms:
            if self.tile_bytes < 2 * self.chunk_size * self.largest:
                raise tell_no_statistics(
                    f"coalitions of {self.group}", self.chunk_size, self.norms
                ) from error
        elif self.tile_bytes < 2 * max(self.largest, 1) and self.memory < 8 * max(self.shared, 1):
            raise tell_shortage(f"coalitions of {self.group}") from error
        self._kept.clear()
        self._scratch.clear()
        self.handover = None
        self.tile_bytes //= 2
        self.memory //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.shortage.halve_(f"coalitions of {self.group}")
