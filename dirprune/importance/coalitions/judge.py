"""From the outputs of many coalitions on the same examples to one number for each coalition."""

from __future__ import annotations

import torch
from torch import Tensor

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.coalitions.values import VALUES
from dirprune.tasks import Task, make_task


class Judge:
    """Sums a task's loss, or counts right classes, over the examples of each coalition.

    Args:
        task: The loss.
        value: "loss" or "accuracy".
    Raises:
        ImportanceError: If the value is unknown, or is accuracy where the task is not classification.
    """

    def __init__(self, task: Task, value: str) -> None:
        if value not in VALUES:
            raise ImportanceError(
                f"value must be 'loss' or 'accuracy', got {value!r}{suggest(value, VALUES)}"
            )
        if value == "accuracy" and task.evaluation_identity != make_task().evaluation_identity:
            raise ImportanceError(
                "value 'accuracy' needs a task that is evaluated by accuracy, got another evaluation; "
                "try value=loss"
            )
        self.task = task
        self.is_cross_entropy = task.loss_identity == make_task("cross_entropy").loss_identity
        self.value = value

    def sum_up_(self, outputs: Tensor, targets: Tensor, are_classes: bool) -> Tensor:
        """Return the summed value of each coalition; higher is better.

        Args:
            outputs: Shape (n_coalitions, n_examples, ...); may be overwritten.
            targets: Shape (n_examples, ...), the same for all coalitions.
            are_classes: From `are_classes`; to look at each call would wait for a GPU each time.
        Returns:
            Shape (n_coalitions,), float64, where the outputs are: minus the sum of the losses, or the number
            of examples whose class is right.
        """
        if self.value == "accuracy":
            return self._count_right(outputs, targets)
        if self.is_cross_entropy and outputs.dim() == 3 and are_classes:
            # The classes before the examples: on a CPU ten times as fast as one row for each example.
            losses = compute_cross_entropies_(outputs.transpose(1, 2).contiguous(), targets)
            return -losses.sum(1, dtype=torch.float64)
        n_coalitions, n_examples = outputs.shape[:2]
        repeated = targets.expand(n_coalitions, *targets.shape).flatten(0, 1)
        losses = self.task.loss(outputs.flatten(0, 1), repeated)
        if losses.shape == (n_coalitions * n_examples,):
            return -losses.reshape(n_coalitions, n_examples).sum(1, dtype=torch.float64)
        return -torch.stack([self.task.summed_loss(part, targets).double() for part in outputs])

    def _count_right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the number of right examples of each coalition; NaN where an output is not finite."""
        is_right = (outputs.argmax(2) == targets).double()
        counts = is_right.flatten(2).mean(2).sum(1) if is_right.dim() > 2 else is_right.sum(1)
        return counts.masked_fill(~outputs.isfinite().flatten(1).all(1), float("nan"))


def are_classes(targets: Tensor) -> bool:
    """Return whether targets are one number >= 0 for each example: classes, of which none is ignored."""
    return targets.dim() == 1 and bool((targets >= 0).all())


def compute_cross_entropies_(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each example, in place and so twice as fast on a CPU as torch's own.

    Args:
        logits: Shape (n_coalitions, n_classes, n_examples), overwritten.
        targets: Classes, shape (n_examples,).
    Returns:
        Shape (n_coalitions, n_examples).
    """
    logits -= logits.amax(1, keepdim=True)
    of_targets = logits.gather(1, targets.expand(len(logits), 1, -1)).squeeze(1)
    return logits.exp_().sum(1).log_().sub_(of_targets)
