"""What is minimised and what is measured: a loss and an evaluation, by name or the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dirprune.errors import ConfigurationError, suggest
from dirprune.identity import identify

Loss = Callable[[Tensor, Tensor], Tensor]
Evaluation = Callable[[Tensor, Tensor], Mapping[str, float]]
Distillation = Callable[[Tensor, Tensor, float], Tensor]
Values = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """A loss, an evaluation over a whole split, and how a student learns from a teacher's outputs.

    Attributes:
        loss: Maps outputs (n, ...) and targets (n, ...) to one loss per example, shape (n,), or to their
            mean, a scalar.
        evaluate: Maps the outputs and targets of a whole split, on any device, to named metrics; an accuracy
            is a fraction in [0, 1]. For a loss or an evaluation of the caller's own, which need not be a
            mean, all outputs of the split are held in the device's memory; named ones are added up.
        averaged: Where loss and evaluation are both named: by name ("loss" and the metric's) what maps
            outputs and targets to numbers, shape (n, ...), of which it is the mean. None elsewhere.
        distil: Maps a student's outputs, a teacher's outputs and a temperature > 0 to a scalar mean loss.
        uniform_loss: Maps outputs to their mean loss under targets that hold every class for equally likely,
            a scalar; None where there are no classes.
        loss_identity: What `loss` is, as plain data for records and cache keys.
        evaluation_identity: The same of `evaluate`.
    """

    loss: Loss
    evaluate: Evaluation
    averaged: Mapping[str, Values] | None
    distil: Distillation
    uniform_loss: Callable[[Tensor], Tensor] | None
    loss_identity: Mapping[str, Any]
    evaluation_identity: Mapping[str, Any]

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the loss over the examples, a scalar.

        With the sum, the gradient with respect to one example's own tensors is that of its own loss,
        whatever the batch size; a loss that returns the mean is multiplied by the number of examples.

        Raises:
            ConfigurationError: If the loss is neither one number per example nor a scalar.
        """
        losses = self.loss(outputs, targets)
        if losses.ndim == 0:
            return losses * len(targets)
        if losses.shape != (len(targets),):
            raise ConfigurationError(
                f"expected a loss of shape ({len(targets)},), one per example, or a scalar mean, "
                f"got {tuple(losses.shape)}; try .flatten(1).mean(1) on it"
            )
        return losses.sum()

    def smoothed_loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Return the mean loss over the examples, a scalar, with smoothed targets.

        Args:
            outputs: Of the network, shape (n, ...).
            targets: Shape (n, ...).
            smoothing: Weight of uniform targets, in [0, 1) [Szegedy et al. 2016, section 7].

        Raises:
            ConfigurationError: If there is something to smooth, but the loss is not cross-entropy.
        """
        loss = self.summed_loss(outputs, targets) / len(targets)
        self.check_smoothing(smoothing)
        if smoothing == 0 or self.uniform_loss is None:
            return loss
        return (1 - smoothing) * loss + smoothing * self.uniform_loss(outputs)

    def check_smoothing(self, smoothing: float) -> None:
        """Check that targets can be smoothed, if they are to be.

        Raises:
            ConfigurationError: If there is something to smooth, but the loss is not cross-entropy.
        """
        if smoothing > 0 and self.uniform_loss is None:
            raise ConfigurationError(
                f"label smoothing {smoothing:g} needs the loss cross_entropy, got another; 0 turns it off"
            )


def make_task(
    loss: str | Loss = "cross_entropy",
    evaluation: str | Evaluation = "accuracy",
    *,
    loss_identity: Mapping[str, Any] | None = None,
    evaluation_identity: Mapping[str, Any] | None = None,
) -> Task:
    """Make a task from names or callables.

    Args:
        loss: "cross_entropy", "mse", or a callable as in `Task.loss`.
        evaluation: "accuracy", "mse", or a callable as in `Task.evaluate`.
        loss_identity: What the loss was before it was used; None: what it is now.
        evaluation_identity: The same of the evaluation.
    Raises:
        ConfigurationError: If a name is unknown.
    """
    losses, values = _get_known("loss", loss, LOSSES), _get_known("evaluation", evaluation, EVALUATIONS)
    are_named = isinstance(loss, str) and isinstance(evaluation, str)
    return Task(
        loss=losses,
        evaluate=_Mean(evaluation, values) if isinstance(evaluation, str) else _CheckedEvaluation(values),
        averaged={"loss": losses, str(evaluation): values} if are_named else None,
        distil=_distil_by_divergence if loss == "cross_entropy" else _distil_by_mse,
        uniform_loss=_uniform_cross_entropy if loss == "cross_entropy" else None,
        loss_identity=identify(loss) if loss_identity is None else loss_identity,
        evaluation_identity=identify(evaluation) if evaluation_identity is None else evaluation_identity,
    )


@dataclass(frozen=True)
class _Mean:
    """A named evaluation: the mean of a number of each example, or of each of its pixels."""

    name: str
    values: Values

    def __call__(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {self.name: self.values(outputs, targets).double().mean().item()}


@dataclass(frozen=True)
class _CheckedEvaluation:
    """An evaluation whose result is checked to be named numbers; a class, so that it can be pickled."""

    function: Evaluation

    def __call__(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        metrics = self.function(outputs, targets)
        if not isinstance(metrics, Mapping):
            raise ConfigurationError(
                f"expected an evaluation that returns a mapping of metric names to numbers, "
                f"got a {type(metrics).__name__}; try {{'my_metric': value}}"
            )
        for name, value in metrics.items():
            is_number = isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0
            if not isinstance(name, str) or not is_number:
                raise ConfigurationError(
                    f"expected a number for each metric name, got {type(value).__name__} for {name!r}"
                )
        return {name: float(value) for name, value in metrics.items()}


def _get_known(kind: str, chosen: str | Callable, known: Mapping[str, Callable]) -> Callable:
    if not isinstance(chosen, str):
        return chosen
    if chosen not in known:
        raise ConfigurationError(f"unknown {kind} {chosen!r}{suggest(chosen, known)}")
    return known[chosen]


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return _mean_per_example(losses)


def _uniform_cross_entropy(outputs: Tensor) -> Tensor:
    return -F.log_softmax(outputs, dim=1).mean()


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.mse_loss(outputs, _shaped_like(targets, outputs), reduction="none")
    return _mean_per_example(losses)


def _mean_per_example(losses: Tensor) -> Tensor:
    """Return one loss per example, shape (n,), of losses of shape (n, ...), over pixels, say."""
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def _shaped_like(targets: Tensor, outputs: Tensor) -> Tensor:
    """Return targets in the shape and type of outputs, so that (n,) and (n, 1) never broadcast to (n, n)."""
    if len(targets) != len(outputs) or targets.numel() != outputs.numel():
        raise ConfigurationError(
            f"expected targets of the shape of the outputs, {tuple(outputs.shape)}, got "
            f"{tuple(targets.shape)}; class labels want 'cross_entropy' and 'accuracy'"
        )
    return targets.to(outputs.dtype).reshape(outputs.shape)


def _are_right(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(1) == targets


def _distil_by_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) of softened classes, times temperature squared [Hinton et al. 2015]."""
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergences = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return divergences.mean() * temperature**2


def _distil_by_mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return F.mse_loss(student, teacher)


LOSSES: Mapping[str, Loss] = MappingProxyType({"cross_entropy": _cross_entropy, "mse": _mse})
EVALUATIONS: Mapping[str, Values] = MappingProxyType({"accuracy": _are_right, "mse": _mse})
"""Each is the mean of these numbers."""
