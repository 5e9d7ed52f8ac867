"""Steps of a training as CUDA graphs: one launch in place of a thousand.

A GPU computes a small network's layers faster than a CPU can ask for them one by one. What a step asks for is
the same each time, so that it is recorded once for each batch size and replayed from then on.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

logger = logging.getLogger("dirprune.training")

N_BEFORE = 8
"""Steps of a batch size that are computed as usual before one is recorded."""
MAX_GRAPHS = 4
MAX_MEMORY_SHARE = 0.3
"""Of the memory that the process may take: a recording keeps what a step takes for itself."""
SWITCH = "DIRPRUNE_CUDA_GRAPHS"
"""The environment variable that turns replaying off: 0."""


@dataclass(frozen=True)
class _Recording:
    """A recorded step.

    Attributes:
        graph: What was recorded.
        arguments: Where it finds its inputs.
        loss: Where it leaves the loss.
        gradients: Where it leaves them, parameter by parameter.
    """

    graph: torch.cuda.CUDAGraph
    arguments: tuple[Tensor, ...]
    loss: Tensor
    gradients: tuple[tuple[nn.Parameter, Tensor | None], ...]


class Replay:
    """Compute loss and gradients of batches of the same few sizes, sooner or later by replaying them.

    A step that waits for the device, or that a recording has no memory for, is always computed as usual, and
    so is one with dropout. Whatever Python itself decides while a step is recorded, such as to leave out a
    layer by a random number of its own, stays decided: such networks need the switch.

    Args:
        network: Whose parameters get gradients.
        compute: From the tensors of a batch to its loss, a scalar to be derived; must depend on nothing else
            that is ever replaced (to be changed in place does no harm).
        device: Where they are; on a CPU nothing is replayed.
    """

    def __init__(self, network: nn.Module, compute: Callable[..., Tensor], device: torch.device) -> None:
        self.parameters, self.compute = list(network.parameters()), compute
        has_dropout = any(isinstance(each, _DropoutNd) and each.p > 0 for each in network.modules())
        self.is_possible = device.type == "cuda" and not has_dropout and os.environ.get(SWITCH) != "0"
        self.n_seen: Counter[tuple[tuple[int, ...], ...]] = Counter()
        self.recordings: dict[tuple[tuple[int, ...], ...], _Recording] = {}
        self.pool: Any = None

    def set_gradients_(self, *arguments: Tensor) -> Tensor:
        """Set the parameters' gradients to those of one batch; return its loss, detached.

        The loss is overwritten by the next call.
        """
        if not self.is_possible:
            return self._compute_(arguments)
        key = tuple(tuple(argument.shape) for argument in arguments)
        recording = self.recordings.get(key)
        if recording is None:
            self.n_seen[key] += 1
            if self.n_seen[key] < N_BEFORE or len(self.recordings) == MAX_GRAPHS:
                return self._compute_(arguments)
            if self.n_seen[key] == N_BEFORE:
                return self._compute_watched_(arguments)
            recording = self._record(arguments)
            if recording is None:
                return self._compute_(arguments)
            self.recordings[key] = recording
        for own, argument in zip(recording.arguments, arguments, strict=True):
            own.copy_(argument)
        recording.graph.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        return recording.loss

    def _compute_(self, arguments: Sequence[Tensor]) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.compute(*arguments)
        loss.backward()
        return loss.detach()

    def _compute_watched_(self, arguments: Sequence[Tensor]) -> Tensor:
        """Compute a step as usual; find out whether it waits for the device or takes much of its memory."""
        was = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loss = self._compute_(arguments)
            finally:
                torch.cuda.set_sync_debug_mode(was)
        waits = [str(each.message) for each in caught if "synchroniz" in str(each.message)]
        allowed = torch.cuda.mem_get_info()[1] * torch.cuda.get_per_process_memory_fraction()
        takes_much = torch.cuda.max_memory_allocated() > MAX_MEMORY_SHARE * allowed
        if waits or takes_much:
            self._give_up(waits[0] if waits else "they take too much memory")
        return loss

    def _record(self, arguments: Sequence[Tensor]) -> _Recording | None:
        """Return a recording of a step, which is not computed by that; None if that cannot be."""
        own = tuple(argument.clone() for argument in arguments)
        graph = torch.cuda.CUDAGraph()
        for parameter in self.parameters:
            parameter.grad = None
        try:
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                loss = self.compute(*own)
                loss.backward()
        except RuntimeError as error:
            self._give_up(str(error))
            return None
        self.pool = graph.pool()
        gradients = tuple((parameter, parameter.grad) for parameter in self.parameters)
        return _Recording(graph, own, loss.detach(), gradients)

    def _give_up(self, reason: str) -> None:
        self.is_possible = False
        logger.debug("steps are not replayed: %s", reason)
