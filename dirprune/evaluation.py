"""Evaluate a network on one role of the data: loss and metrics of the task, for any task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dirprune.data.roles import AnySplit, DataRoles
from dirprune.errors import ConfigurationError, DataError
from dirprune.layers import modes_restored
from dirprune.tasks import Task

BATCH_SIZE = 500
MAX_BATCH_VALUES = 2**24
"""Numbers in a batch's inputs: fewer than `BATCH_SIZE` images where they are large."""
CACHED_VALUES = 2**18
"""Numbers in a batch's inputs on a processor, whose caches hold the activations of few images: a core takes
ResNet-20, ResNet-56 and VGG-16 through 85 images of CIFAR at once faster than through 500."""
LEAST_CACHED = 32
"""Images in a batch on a processor where they are large: below it, weights are read too often."""


def count_at_once(shape: Sequence[int], device: str | torch.device) -> int:
    """Return how many inputs of a shape go through a network at once where only their outputs are wanted."""
    n_values = math.prod(shape)
    most = min(BATCH_SIZE, max(1, MAX_BATCH_VALUES // n_values))
    if torch.device(device).type != "cpu":
        return most
    return min(most, max(LEAST_CACHED, CACHED_VALUES // n_values))


def evaluate(
    network: nn.Module,
    split: AnySplit,
    roles: DataRoles,
    task: Task,
    device: str | torch.device = "cpu",
    prefix: str = "val_",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Compute the task's loss and metrics over a whole split, in evaluation mode and float32.

    Args:
        network: Must be on `device`; its modes are as before afterwards.
        split: The images and targets; moved to `device` if they are elsewhere.
        roles: Says how inputs are normalised.
        task: Gives the loss and the metrics.
        device: Where to compute.
        prefix: Put before every name.
        progress: Told after each batch how many examples are done, and of how many.

    Returns:
        `{prefix}loss` (mean per example) and `{prefix}<name>` of every metric.

    Raises:
        DataError: If the split is empty, or streamed images cannot be read.
        ConfigurationError: If an accuracy is not a fraction.
    """
    if len(split) == 0:
        raise DataError(f"expected at least one example to compute {prefix}loss, got an empty split")
    plan = torch.arange(len(split)).split(count_at_once(split.input_shape, device))
    with modes_restored(network), torch.no_grad():
        network.eval()
        held = _Joined(len(split)), _Joined(len(split))
        for places, batch in zip(plan, split.to(device).batches(plan), strict=True):
            if n := len(batch.places):
                held[0].add(network(roles.normalise(batch.inputs)).float(), n)
                held[1].add(batch.targets, n)
            if progress is not None:
                progress(int(places[-1]) + 1, len(split))
        outputs, targets = (joined.rows for joined in held)
        metrics = {"loss": float(task.summed_loss(outputs, targets)) / len(targets)}
        metrics |= {name: float(value) for name, value in task.evaluate(outputs, targets).items()}
    for name, value in metrics.items():
        if name.endswith("accuracy") and (value < 0 or value > 1):
            raise ConfigurationError(
                f"{name} must be a fraction in [0, 1], got {value:g}; "
                "a percentage is divided by 100, so that 93 becomes 0.93"
            )
    return {prefix + name: value for name, value in metrics.items()}


class _Joined:
    """Tensors of batches one behind the other: what `torch.cat` gives, without holding them twice.

    Args:
        n_examples: Of all batches, at most.
    """

    def __init__(self, n_examples: int) -> None:
        self.n_examples, self.n_filled = n_examples, 0
        self.room = torch.empty(0)

    @property
    def rows(self) -> Tensor:
        """What was added, shape (n, ...)."""
        return self.room[: self.n_filled]

    def add(self, rows: Tensor, n_examples: int) -> None:
        """Add what belongs to the next examples, shape (n, ...), mostly as many rows for each as before."""
        if not self.n_filled:
            n_rows = -(-len(rows) * self.n_examples // n_examples)  # rounded up
            layout = _find_layout(rows)
            self.room = torch.empty(
                n_rows, *rows.shape[1:], dtype=rows.dtype, device=rows.device, memory_format=layout
            )
        end = self.n_filled + len(rows)
        is_alike = rows.shape[1:] == self.room.shape[1:] and rows.dtype == self.room.dtype
        if end > len(self.room) or not is_alike:
            self.room = torch.cat([self.rows, rows])  # which says what does not fit together
            self.n_filled = len(self.room)
            return
        self.room[self.n_filled : end] = rows
        self.n_filled = end


def _find_layout(rows: Tensor) -> torch.memory_format:
    """Return in which order a tensor lies in memory: sums over another order differ in their last bits."""
    innermost = {4: torch.channels_last, 5: torch.channels_last_3d}.get(rows.ndim, torch.contiguous_format)
    is_plain = rows.is_contiguous() or not rows.is_contiguous(memory_format=innermost)
    return torch.contiguous_format if is_plain else innermost
