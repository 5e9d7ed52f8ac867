"""Covariances of switches by Laplace's approximation: from curvature at the dense network, without fitting.

Stochastic fits of the families disagree about pairs of channels from seed to seed. Curvature has no such
noise, and from the gradients of each image the null of `simplex.null` comes at hardly any cost.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.importance.base import Scores, ScoringContext
from dirprune.importance.cache import ScoreCache, context_key
from dirprune.importance.footprint import allow
from dirprune.importance.fresh_norm import count_in_part
from dirprune.importance.simplex.covariances import GroupCovariances, find_moments
from dirprune.importance.simplex.family import split_channels
from dirprune.importance.simplex.null import count_draws, draw_signs, make_rng
from dirprune.switches import switched

LAPLACE_VERSION = 3  # raised when the same images give other covariances
MAX_BATCH = 250
N_BYTES = 4 + 8 + 8  # of an entry: as it is computed, in float64, and times the curvature of the loss
N_BYTES_OF_NULL = 8 + 8  # the last two once more, with signs
N_BYTES_OF_HESSIAN = 4 + 4 + 8  # likewise: row by row, together, and in float64
EPSILON = torch.finfo(torch.float64).eps


def compute_laplace_covariances(
    context: ScoringContext,
    n_parts: int = 3,
    prior_concentration: float = 3.0,
    cache: ScoreCache | None = None,
    n_draws: int | None = None,
) -> dict[str, GroupCovariances]:
    """Return Gaussian covariances of the switches around 1 / n, one for each disjoint part of the images.

    With s = softmax(t) the prior Dirichlet(p, ..., p) has the curvature p P in t at t = 0, P = I - 1 1^T / n,
    and the loss P H P, where H is its Gauss-Newton matrix in the factors n s, summed over the images. The
    covariance of t is the inverse on the space that P projects onto, that of s follows from ds = P dt / n.

    Args:
        context: Its seed deals the calibration images out to the parts, and signs to the images.
        n_parts: How many; each takes the place of a seed in `GroupCovariances`; >= 1.
        prior_concentration: p, of each channel; > 0.
        cache: Where the covariances of each part are kept as soon as they are there, and found again.
        n_draws: Of the null; >= 0. None takes `count_draws`, fewer in wide networks.
    Raises:
        ImportanceError: If there are fewer images than parts, or the prior is not above 0 or too weak to
            count where the loss says nothing.
    """
    n_images = len(context.calibration)
    if not context.grouping.groups:
        return {}
    if n_images == 0:
        raise ImportanceError(
            "covariances need at least one calibration example, got none; enlarge the training set"
        )
    if not 1 <= n_parts <= n_images:
        raise ImportanceError(f"parts must be between 1 and the {n_images} images, got {n_parts}")
    if not 0 < prior_concentration < float("inf"):
        raise ImportanceError(f"prior_concentration must be a number above 0, got {prior_concentration}")
    network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
    order = torch.randperm(n_images, generator=torch.Generator().manual_seed(context.seed))
    found: dict[str, list[Tensor]] = {group.name: [] for group in context.grouping.groups}
    if n_draws is None:
        n_draws = count_draws(context.grouping.n_channels.values())
    for number, positions in enumerate(order.tensor_split(n_parts)):
        part = dataclasses.replace(
            context, network=network, calibration=context.calibration.subset(positions)
        )
        seed = context.seed + number
        beside = [prior_concentration, n_draws, seed if n_draws else None]
        key = None if cache is None else ["laplace", LAPLACE_VERSION, *beside, context_key(part)]
        compute = partial(_compute_part, part, prior_concentration, n_draws, seed)
        covariances = find_moments(cache, key, compute)
        for name, of_group in found.items():
            of_group.append(covariances[name])
        if context.progress is not None:
            context.progress("parts of the images", number + 1, n_parts)
    return {name: _gather(covariances) for name, covariances in found.items()}


def _compute_part(context: ScoringContext, prior_concentration: float, n_draws: int, seed: int) -> Scores:
    """Return the covariances of every group on some images, the real ones and then those of each draw."""
    curvatures = compute_curvatures(context, n_draws, seed).items()
    return {name: _invert(curvature, prior_concentration) for name, curvature in curvatures}


def compute_curvature(context: ScoringContext) -> dict[str, Tensor]:
    """Return the first of `compute_curvatures`, the real one, shape (n_channels, n_channels)."""
    return {name: found[0] for name, found in compute_curvatures(context).items()}


@torch.enable_grad()
def compute_curvatures(context: ScoringContext, n_draws: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """Return the Gauss-Newton matrix of the summed loss in factors at one on the channels of each group.

    It is the sum over images of J^T C J, with J the Jacobian of the network's outputs in the factors and C
    the Hessian of the image's loss in its outputs. It costs one backward pass for each output. What a
    batch saves for its derivatives, its Jacobians and Hessians take at most `memory_mb`, or one image's do.
    A draw of the null is the sum of D J^T C J D, with signs of the image's own on the diagonal of D.

    Args:
        n_draws: Of the null; >= 0.
        seed: Of its signs.
    Returns:
        For each group positive semi-definite float64 matrices, first the real one and then those of the
        draws, which have the same diagonal; shape (1 + n_draws, n_channels, n_channels).
    """
    groups = context.grouping.groups
    shapes = {group.name: (1 + n_draws, group.n_channels, group.n_channels) for group in groups}
    totals = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    rng, n_total = make_rng(seed), sum(context.grouping.n_channels.values())
    shortage = allow(context, MAX_BATCH, n_bytes_beside=_count_bytes(context, n_draws))
    n_images = len(context.calibration)
    size = MAX_BATCH if shortage.is_divisible else count_in_part(n_images)
    for batch in torch.arange(n_images).split(size):
        signs = draw_signs((n_draws, len(batch), n_total), rng)
        compute = partial(_sum_up_curvatures, context, signs, int(batch[0]))
        for sums in shortage.compute_in_parts(batch, compute, "curvature"):
            for name, total in sums.items():
                totals[name] += total
        if context.progress is not None:
            context.progress("images of a part", int(batch[-1]) + 1, n_images)
    return totals


def _sum_up_curvatures(
    context: ScoringContext, signs: Tensor, start: int, positions: Tensor
) -> dict[str, Tensor]:
    """Return the sums of `compute_curvatures` over some examples.

    Args:
        signs: Of the null, shape (n_draws, batch, n_total).
        start: Position of the first example of the batch that they are for.
        positions: Of the examples, some of that batch.
    """
    groups = context.grouping.groups
    inputs, targets = context.load(positions)
    ones = {
        group.name: torch.ones(len(inputs), group.n_channels, device=inputs.device, requires_grad=True)
        for group in groups
    }
    with switched(context.network, context.grouping, ones):
        outputs = context.network(inputs)
    curvature = _loss_curvature(context, outputs.detach(), targets)
    rows = [
        torch.autograd.grad(column.sum(), list(ones.values()), retain_graph=True, materialize_grads=True)
        for column in outputs.reshape(len(inputs), -1).unbind(1)
    ]
    signs_of = split_channels(signs[:, positions - start], context.grouping.n_channels)
    found = {}
    for name, parts in zip(ones, zip(*rows, strict=True), strict=True):
        jacobian = torch.stack(parts, dim=1).to("cpu", torch.float64)
        weighted = curvature @ jacobian
        sums = [torch.einsum("bkn,bkm->nm", jacobian, weighted)]
        for of_draw in signs_of[name].unsqueeze(2):
            sums.append(torch.einsum("bkn,bkm->nm", of_draw * jacobian, of_draw * weighted))
        found[name] = torch.stack(sums)
    return found


def _count_bytes(context: ScoringContext, n_draws: int) -> int:
    """Return how many bytes the Jacobian of one image, the Hessian of its loss and its signs take."""
    # Two examples, where there are: with one, batch norm without statistics fails, `squeeze` takes an axis.
    inputs, _ = context.load(torch.arange(min(2, len(context.calibration))))
    with torch.no_grad():
        outputs = context.network(inputs)
    n_outputs = outputs.numel() // len(inputs)
    n_total = sum(context.grouping.n_channels.values())
    n_bytes = N_BYTES + N_BYTES_OF_NULL * (n_draws > 0)
    return n_outputs * (n_bytes * n_total + N_BYTES_OF_HESSIAN * n_outputs) + n_draws * n_total


def _loss_curvature(context: ScoringContext, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the Hessian of each example's loss in its outputs, shape (batch, n_outputs, n_outputs)."""
    outputs = outputs.requires_grad_()
    loss = context.task.summed_loss(outputs, targets)
    (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
    rows = [
        torch.autograd.grad(column.sum(), outputs, retain_graph=True, materialize_grads=True)[0]
        for column in slope.reshape(len(targets), -1).unbind(1)
    ]
    return torch.stack([row.reshape(len(targets), -1) for row in rows], dim=1).to("cpu", torch.float64)


def _gather(covariances: Sequence[Tensor]) -> GroupCovariances:
    """Return the covariances of one group, and of its null, with the means that they lie around.

    Args:
        covariances: Of each part, the real ones and then those of the draws, shape
            (1 + n_draws, n_channels, n_channels).
    """
    n_channels = covariances[0].shape[-1]
    means = torch.full((len(covariances), n_channels), 1 / n_channels, dtype=torch.float64)
    real, *null = torch.stack(list(covariances), dim=1)
    return GroupCovariances(means, real, tuple(GroupCovariances(means, draw) for draw in null))


def _invert(curvature: Tensor, prior_concentration: float) -> Tensor:
    """Return covariances of the switches from curvatures of the loss in the factors, both (..., n, n)."""
    if not curvature.isfinite().all():
        return torch.full_like(curvature, float("nan"))  # which is said where covariances are kept
    n_channels = curvature.shape[-1]
    along_ones = torch.full((n_channels, n_channels), 1 / n_channels, dtype=torch.float64)
    project = torch.eye(n_channels, dtype=torch.float64) - along_ones
    projected = project @ curvature @ project
    # What is along ones goes in the end: a size like that of the rest keeps rounding from the rest.
    usual = prior_concentration + projected.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    precision = prior_concentration * project + projected + usual * along_ones
    eigenvalues = torch.linalg.eigvalsh(precision).abs()
    largest = torch.maximum(eigenvalues.amax(-1), curvature.abs().amax((-2, -1)))  # before it was projected
    if (eigenvalues.amin(-1) < n_channels * EPSILON * largest).any():
        raise ImportanceError(
            f"expected a prior_concentration that rounding does not swallow, got {prior_concentration:g} "
            f"beside curvatures up to {float(curvature.abs().max()):.2g}; try a larger one"
        )
    inverse = torch.linalg.inv(precision)
    covariance = project @ inverse @ project / n_channels**2
    return (covariance + covariance.mT) / 2
