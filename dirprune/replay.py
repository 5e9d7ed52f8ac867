"""Steps of a training as CUDA graphs: one launch in place of a thousand.

A GPU computes a small network's layers faster than a CPU can ask for them one by one. What a step asks for is
the same each time, so that it is recorded once for each batch size and replayed from then on.
"""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
"""The environment variable that decides: 1 replays steps of any network, 0 of none."""
KNOWN = ("torch.nn.", "torchvision.", "dirprune.")
"""Where the modules come from whose steps are replayed by default."""

Shapes = tuple[tuple[int, ...], ...]


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

    A step that waits for the device, that draws from torch's, NumPy's or Python's own random numbers
    (dropout, layers left out at random), or whose recording would take much memory, is always computed as
    usual. Whatever else Python decides or replaces while a step is recorded, by a count of the steps say,
    stays as it was: so by default only networks of modules that do no such thing are replayed.

    Args:
        network: Whose parameters get gradients.
        device: Where they are; only a GPU that is the current one replays.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.parameters = list(network.parameters())
        self.is_possible = (
            (os.environ.get(SWITCH) or ("1" if is_known(network) else "0")) == "1"
            and device.type == "cuda"
            and device.index in (None, torch.cuda.current_device())
            and not any(isinstance(each, _DropoutNd) and each.p > 0 for each in network.modules())
        )
        self.n_seen: Counter[Shapes] = Counter()
        self.recordings: dict[Shapes, _Recording] = {}
        self.pool: Any = None

    def set_gradients_(self, compute: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """Set the parameters' gradients to those of one batch; return its loss, detached.

        Args:
            compute: From the arguments to the loss, a scalar; the same in every call. Must depend on nothing
                else that is ever replaced; to be changed in place does no harm.
            arguments: Tensors of the batch.
        Returns:
            The loss, which the next call overwrites.
        """
        if not self.is_possible:
            return self._compute_(compute, arguments)
        key = tuple(tuple(argument.shape) for argument in arguments)
        recording = self.recordings.get(key)
        if recording is None:
            self.n_seen[key] += 1
            if self.n_seen[key] < N_BEFORE or len(self.recordings) == MAX_GRAPHS:
                return self._compute_(compute, arguments)
            if self.n_seen[key] == N_BEFORE:
                return self._compute_watched_(compute, arguments)
            recording = self._record(compute, arguments)
            if recording is None:
                return self._compute_(compute, arguments)
            self.recordings[key] = recording
            logger.info("steps of %d images are replayed", len(arguments[0]))
        for own, argument in zip(recording.arguments, arguments, strict=True):
            own.copy_(argument)
        recording.graph.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        return recording.loss

    def stop_(self) -> None:
        """Compute all further steps as usual, and give back the memory of the recordings."""
        self.is_possible = False
        if self.recordings:
            self.recordings.clear()
            for parameter in self.parameters:
                parameter.grad = None

    def _compute_(self, compute: Callable[..., Tensor], arguments: Sequence[Tensor]) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        loss = compute(*arguments)
        loss.backward()
        return loss.detach()

    def _compute_watched_(self, compute: Callable[..., Tensor], arguments: Sequence[Tensor]) -> Tensor:
        """Compute a step as usual; find out whether it waits for the device or takes much of its memory."""
        allowed = torch.cuda.mem_get_info()[1] * torch.cuda.get_per_process_memory_fraction()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        was, drawn = torch.cuda.get_sync_debug_mode(), read_random_states()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loss = self._compute_(compute, arguments)
            finally:
                torch.cuda.set_sync_debug_mode(was)
        if any(says_wait(str(each.message)) for each in caught):
            self._give_up("they wait for the device")
        elif read_random_states() != drawn:
            self._give_up("they draw random numbers")
        elif torch.cuda.max_memory_allocated() - before > MAX_MEMORY_SHARE * allowed:
            self._give_up("they take much memory")
        return loss

    def _record(self, compute: Callable[..., Tensor], arguments: Sequence[Tensor]) -> _Recording | None:
        """Return a recording of a step, which is not computed by that; None if that cannot be."""
        own = tuple(argument.clone() for argument in arguments)
        graph = torch.cuda.CUDAGraph()
        for parameter in self.parameters:
            parameter.grad = None
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                loss = compute(*own)
                loss.backward()
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own behind
            self._give_up(str(error))
            return None
        self.pool = graph.pool()
        gradients = tuple((parameter, parameter.grad) for parameter in self.parameters)
        return _Recording(graph, own, loss.detach(), gradients)

    def _give_up(self, reason: str) -> None:
        self.stop_()
        logger.info("steps are not replayed: %s", reason)


def is_known(network: nn.Module) -> bool:
    """Return whether all modules of a network are torch's, torchvision's or our own."""
    return all(f"{type(module).__module__}.".startswith(KNOWN) for module in network.modules())


def read_random_states() -> tuple[object, ...]:
    """Return where the generators stand that Python, NumPy and torch draw from if given none."""
    states: list[object] = [random.getstate(), torch.get_rng_state().numpy().tobytes()]
    kind, keys, *rest = np.random.get_state()
    states += [kind, np.asarray(keys).tobytes(), *rest]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state().numpy().tobytes())
    return tuple(states)


def says_wait(message: str) -> bool:
    """Return whether a warning of torch's says that an operation waited for the device.

    Not the one that torch gives when it is asked to look for such operations, which speaks of them too.
    """
    return "called a synchronizing" in message
