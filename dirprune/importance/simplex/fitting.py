"""The one way in which a posterior over switches is fitted, whatever its family: all groups jointly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import ScoringContext
from dirprune.importance.footprint import allow
from dirprune.importance.simplex.family import SimplexFamily, split_channels
from dirprune.optimizers import Adam
from dirprune.switches import switched

STATISTICS = ("mean", "snr")
SIMPLICES = ("group", "network")
BATCH_SIZE = 128


@dataclass(frozen=True)
class SimplexOptions:
    """Options that all families share.

    Attributes:
        prior_concentration: Of each channel in the symmetric Dirichlet prior; > 0.
        steps: Optimiser steps; >= 0.
        lr: Learning rate of Adam on the unconstrained parameters, falling to zero along a cosine; > 0.
        batch_size: Calibration examples in a step; >= 1, and at most as many as there are, or 128. Where
            there are fewer, some come again with other samples.
        n_samples: Different samples in a step, dealt out to its examples in turn; >= 1.
        statistic: What is the score: "mean" of the switch, or "snr", its mean over its standard deviation.
        simplex: What the switches of add up to 1: each "group", or the "network", in which channels of all
            groups share one simplex and scores are comparable between groups.
    """

    prior_concentration: float = 3.0
    steps: int = 120
    lr: float = 0.1
    batch_size: int = BATCH_SIZE
    n_samples: int = 128
    statistic: str = "mean"
    simplex: str = "group"

    def __post_init__(self) -> None:
        check_choice("statistic", self.statistic, STATISTICS)
        check_choice("simplex", self.simplex, SIMPLICES)
        for name in ("prior_concentration", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ImportanceError(f"{name} must be a number above 0, got {getattr(self, name)}")
        for name, least in (("steps", 0), ("batch_size", 1), ("n_samples", 1)):
            check_least(name, getattr(self, name), least)

    @property
    def is_sampled(self) -> bool:
        """Whether samples of the switches go through the network, else their mean."""
        return True


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ImportanceError: If it is not; the nearest one is named.
    """
    if value not in choices:
        known = f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
        raise ImportanceError(f"{name} must be {known}, got {value!r}{suggest(value, choices)}")


def check_least(name: str, value: int, least: int) -> None:
    """Refuse a number below the least one.

    Raises:
        ImportanceError: If it is below.
    """
    if value < least:
        raise ImportanceError(f"{name} must be at least {least}, got {value}")


def fit_(
    posterior: SimplexFamily, context: ScoringContext, options: SimplexOptions, signs: Tensor | None = None
) -> None:
    """Fit the parameters of all groups in one pass with Adam, to minimise `compute_loss`.

    Args:
        signs: Of every calibration example and channel, shape (n_examples, n_total); see `compute_loss`.
    Raises:
        ImportanceError: If a batch were larger than the calibration split, or a gradient is not finite.
    """
    n_examples = len(context.calibration)
    most = max(n_examples, BATCH_SIZE)
    if options.batch_size > most:
        raise ImportanceError(
            f"batch_size must be at most {most} with {n_examples} calibration examples, "
            f"got {options.batch_size}"
        )
    rng = torch.Generator().manual_seed(context.seed)
    optimiser = Adam(posterior.parameters, lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(options.steps, 1))
    batches = draw_batches(n_examples, options.batch_size, options.steps, rng)
    shortage = allow(context, options.batch_size)
    with torch.enable_grad():
        for number, positions in enumerate(batches):
            drawn = rng.get_state()

            def differentiate(
                places: Tensor, batch: Tensor = positions, drawn: Tensor = drawn
            ) -> Sequence[Tensor]:
                rng.set_state(drawn)  # each part sees the samples of the whole batch
                loss = compute_loss(posterior, context, batch, options, rng, places, signs)
                return torch.autograd.grad(loss, posterior.parameters, materialize_grads=True)

            places = torch.arange(len(positions))
            of_parts = shortage.compute_in_parts(places, differentiate, "a step of the posterior")
            for parameter, *gradients in zip(posterior.parameters, *of_parts, strict=True):
                parameter.grad = torch.stack(gradients).sum(0)
            if not _are_finite(posterior.parameters):
                raise ImportanceError(
                    f"expected finite gradients in step {number + 1} of the posterior, got NaN or infinity; "
                    "look for NaN in weights and calibration inputs, or try a smaller lr"
                )
            optimiser.step()
            schedule.step()
            if context.progress is not None:
                context.progress("steps of the posterior", number + 1, options.steps)


def _are_finite(parameters: Sequence[Tensor]) -> bool:
    """Return whether all gradients are finite; a GPU is waited for once."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())


def compute_loss(
    posterior: SimplexFamily,
    context: ScoringContext,
    positions: Tensor,
    options: SimplexOptions,
    rng: torch.Generator,
    places: Tensor | None = None,
    signs: Tensor | None = None,
) -> Tensor:
    """Return the loss per example of some calibration examples plus KL / n_examples, a scalar in nats.

    Args:
        positions: Of the examples in the calibration split, shape (batch,).
        rng: For the samples; the point estimator draws none.
        places: In the batch, of the examples whose share of it is returned, shape (n,); all by default.
        signs: -1 where a calibration example sees samples of a channel's switch mirrored at their mean, else
            1, shape (n_examples, n_total): how interactions are destroyed, see `null`. None mirrors nothing.
    """
    places = torch.arange(len(positions)) if places is None else places
    inputs, targets = context.load(positions[places])
    if options.is_sampled:
        samples = posterior.sample(min(options.n_samples, len(positions)), rng)
        switches = samples[places % options.n_samples]
        if signs is not None:
            mean = samples.mean(0)
            switches = mean + signs[positions[places]] * (switches - mean)
    else:
        switches = posterior.mean()
    factors = (switches * posterior.n_beside).to(inputs.device, inputs.dtype)
    with switched(context.network, context.grouping, split_channels(factors, context.grouping.n_channels)):
        fit = context.task.summed_loss(context.network(inputs), targets) / len(positions)
    share = len(places) / len(positions)
    return fit.to("cpu", torch.float64) + share * posterior.kl(rng) / len(context.calibration)


def draw_batches(n_examples: int, batch_size: int, n_batches: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield positions of `n_batches` batches: random orders of all examples, one after another, cut up."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(n_batches):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(n_examples, generator=rng)])
        yield order[:batch_size]
        order = order[batch_size:]
