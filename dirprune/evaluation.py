"""Evaluate a network on one role of the data: loss and metrics of the task, for any task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dirprune.data.roles import AnySplit, DataRoles
from dirprune.errors import ConfigurationError, DataError
from dirprune.layers import copy_for_evaluation, modes_restored, run_example
from dirprune.tasks import Task, Values

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


def check_fit(network: nn.Module, roles: DataRoles, task: Task, hint: str = "") -> None:
    """Check that a network takes the data, and gives what the task judges; it is not touched.

    Args:
        network: The network, on any device.
        roles: The data.
        task: Where its loss is cross entropy, there is an output for each class of the data.
        hint: What to try where there is not.

    Raises:
        ConfigurationError: If the network fails on inputs of the data, or returns anything else than a tensor
            or another number of outputs.
    """
    with torch.no_grad():
        outputs = run_example(copy_for_evaluation(network), roles.example_input())
    if not isinstance(outputs, Tensor):
        raise ConfigurationError(
            f"expected a network that returns one tensor, got {type(outputs).__name__}; "
            "try one that returns only what is to be judged"
        )
    is_of_classes = task.uniform_loss is not None and roles.n_classes is not None and outputs.ndim == 2
    if is_of_classes and outputs.shape[1] != roles.n_classes:
        raise ConfigurationError(
            f"expected a network with {roles.n_classes} outputs, one for each class of {roles.name}, got "
            f"{outputs.shape[1]}; try {hint or 'another last layer, or the data that it was made for'}"
        )


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
        judged: _Whole | _Averages
        judged = _Whole(task, len(split)) if task.averaged is None else _Averages(task.averaged)
        for places, batch in zip(plan, split.to(device).batches(plan), strict=True):
            if n := len(batch.places):
                judged.add(network(roles.normalise(batch.inputs)).float(), batch.targets, n)
            if progress is not None:
                progress(int(places[-1]) + 1, len(split))
        metrics = judged.compute()
    for name, value in metrics.items():
        if name.endswith("accuracy") and (value < 0 or value > 1):
            raise ConfigurationError(
                f"{name} must be a fraction in [0, 1], got {value:g}; "
                "a percentage is divided by 100, so that 93 becomes 0.93"
            )
    return {prefix + name: value for name, value in metrics.items()}


class _Averages:
    """Means over the batches of a split, which are added up in float64 and not held.

    Args:
        averaged: As in `Task`.
    """

    def __init__(self, averaged: Mapping[str, Values]) -> None:
        self.averaged = averaged
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()

    def add(self, outputs: Tensor, targets: Tensor, n_examples: int) -> None:
        """Add a batch."""
        for name, find_values in self.averaged.items():
            values = find_values(outputs, targets)
            total = values.sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] += values.numel()

    def compute(self) -> dict[str, float]:
        """Return each mean."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


class _Whole:
    """The outputs and targets of a split, held until a loss and an evaluation see all of them at once.

    Args:
        task: Gives both.
        n_examples: Of the split, at most.
    """

    def __init__(self, task: Task, n_examples: int) -> None:
        self.task = task
        self.outputs, self.targets = _Joined(n_examples), _Joined(n_examples)

    def add(self, outputs: Tensor, targets: Tensor, n_examples: int) -> None:
        """Add a batch."""
        self.outputs.add(outputs, n_examples)
        self.targets.add(targets, n_examples)

    def compute(self) -> dict[str, float]:
        """Return the loss per example and the metrics."""
        outputs, targets = self.outputs.rows, self.targets.rows
        loss = float(self.task.summed_loss(outputs, targets)) / len(targets)
        metrics = self.task.evaluate(outputs, targets)
        return {"loss": loss, **{name: float(value) for name, value in metrics.items()}}


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
