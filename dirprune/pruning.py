"""The story of the project in one function: score, select, compact, recalibrate or reconstruct."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dirprune.architecture import Architecture
from dirprune.data.roles import DataRoles, Split
from dirprune.device import SHORTAGE_ERRORS, is_out_of_memory
from dirprune.errors import ArchitectureError
from dirprune.evaluation import MAX_BATCH_VALUES
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext, Selector, create, select_channels
from dirprune.importance.base import MEMORY_MB, Progress
from dirprune.layers import copy_for_evaluation, modes_restored
from dirprune.reconstruction import list_consumers, reconstruct_
from dirprune.surgery import compact
from dirprune.tasks import Task, make_task
from dirprune.tracing import find_groups

logger = logging.getLogger(__name__)

LEAST_AT_ONCE = 32
"""Images that batch-norm statistics are estimated from at once at least, however large they are."""


@dataclass(frozen=True)
class Pruned:
    """A smaller network and how it came about.

    Attributes:
        network: The compact network, in evaluation mode, on the device asked for.
        architecture: Kept channels per group.
        kept: Sorted kept channel indices of every group.
        scores: For each group a tensor of shape (n_channels,), higher = kept; empty when `kept` was given.
        was_cached: Whether the scores came from the cache.
        scoring_time_s: Seconds that scoring took, reading the cache included.
    """

    network: nn.Module
    architecture: Architecture
    kept: dict[str, list[int]]
    scores: dict[str, Tensor]
    was_cached: bool = False
    scoring_time_s: float = 0.0


def prune(
    network: nn.Module,
    roles: DataRoles,
    task: Task | None = None,
    architecture: Architecture | Mapping[str, int] | Sequence[int] | str | float | None = None,
    method: str | Selector = "dirichlet",
    options: Mapping[str, Any] | None = None,
    *,
    kept: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    cache: ScoreCache | None = None,
    device: str | torch.device = "cpu",
    grouping: Grouping | None = None,
    progress: Progress | None = None,
    memory_mb: int = MEMORY_MB,
    reconstruct: bool = False,
) -> Pruned:
    """Make a smaller network that keeps the most important channels; the given network stays as it is.

    Scores, batch-norm statistics and refitted weights come from the calibration split alone. Nothing is
    trained.

    Args:
        network: The trained dense network.
        roles: The data; only its calibration split is read.
        task: The loss behind the scores; cross-entropy by default.
        architecture: Kept channels per group (groups not named keep all), numbers or text such as "8,9,36,17"
            in forward order, or one keep ratio in (0, 1] for every group.
        method: A name from `dirprune.importance.list_methods()`, or an instance of your own.
        options: Options of a method given by name.
        kept: Kept channel indices per group (groups not named keep all), instead of an architecture and a
            method.
        seed: Seed of the method.
        cache: Where scores are looked up and kept; None computes them.
        device: Where to compute, and where the result is.
        grouping: The network's channel groups, when known already.
        progress: Told, while scores take long to compute, what is being done and how much of it is.
        memory_mb: Memory in MiB that scoring and refitting may take, whatever the size of the data.
        reconstruct: Whether the layers behind the cuts are refitted to the dense network's outputs. Without
            it, or where a layer cannot be refitted, batch-norm statistics are estimated anew.
    Raises:
        ConfigurationError: If no channel group can be cut, or the network cannot be copied; says why.
        ArchitectureError: If not exactly one of `architecture` and `kept` is given, or it does not fit.
        ImportanceError: If the method or an option is unknown, or scores break the contract.
    """
    dense = copy_for_evaluation(network).to(device)
    example = roles.example_input().to(device)
    grouping = find_groups(dense, example) if grouping is None else grouping
    grouping.check_any()
    if (architecture is None) == (kept is None):
        raise ArchitectureError(
            "prune needs either an architecture or kept indices, got neither or both; give one"
        )
    context = ScoringContext(
        dense,
        grouping,
        roles.calibration,
        roles.normalise,
        task or make_task(),
        seed,
        device,
        memory_mb=memory_mb,
        progress=progress,
    )
    if kept is not None:
        whole = {group.name: range(group.n_channels) for group in grouping.groups}
        indices, scores, was_cached, seconds = grouping.checked_kept({**whole, **kept}), {}, False, 0.0
        chosen = Architecture({name: len(channels) for name, channels in indices.items()})
    else:
        chosen = _read_architecture(architecture, grouping)
        chooser = create(method, options) if isinstance(method, str) else method
        selection = select_channels(chooser, context, chosen, cache)
        indices, scores = selection.kept, selection.scores
        was_cached, seconds = selection.was_cached, selection.wall_time_s
    smaller = compact(dense, grouping, indices, example).eval()
    repair_(smaller, context, indices, reconstruct)
    return Pruned(smaller, chosen, indices, scores, was_cached, seconds)


def repair_(
    network: nn.Module,
    context: ScoringContext,
    kept: Mapping[str, Sequence[int]],
    reconstruct: bool,
    known: dict[str, Tensor] | None = None,
) -> None:
    """Let a compact network make up for its cuts without training, in place.

    Args:
        network: On the context's device, in evaluation mode.
        context: The dense network, its groups, and the calibration images.
        kept: Kept channel indices of every group.
        reconstruct: Whether the layers behind the cuts are refitted to the dense network's outputs. Without
            it, or where a layer cannot be refitted, batch-norm statistics are estimated anew.
        known: What `reconstruct_` knows of the dense network, for several calls with the same context.
    """
    consumers = list_consumers(context.grouping, kept)
    if not (reconstruct and consumers <= set(reconstruct_(network, context, kept, known=known))):
        recalibrate_(network, context.calibration, context.normalise, context.device)


@torch.no_grad()
def recalibrate_(
    network: nn.Module,
    calibration: Split,
    normalise: Callable[[Tensor], Tensor],
    device: str | torch.device = "cpu",
    batch_size: int = 500,
) -> None:
    """Estimate batch-norm statistics anew, as those of all calibration images; in place.

    Images go through in batches, each normalised by itself. Means and variances of the batches are put
    together to those of all images (Chan, Golub, LeVeque 1983, equation 2.1): the mean of the batches'
    variances would be too small, the more so the smaller the batches.

    All other modules, dropout among them, run in evaluation mode. Modes and momenta are left as found. Does
    nothing to a network without batch norm.

    Args:
        network: On `device`.
        normalise: From the split's raw inputs to what the network takes.
        batch_size: At most; batches are of equal size, give or take one. They are smaller where memory runs
            out, and on a processor where images are large.
    """
    layers = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not layers or len(calibration) == 0:
        return
    momenta = [module.momentum for module in layers]
    n_at_once = batch_size
    if torch.device(device).type == "cpu":  # which kills the process rather than say that memory ran out
        n_values = math.prod(calibration.input_shape)
        n_at_once = min(batch_size, max(LEAST_AT_ONCE, MAX_BATCH_VALUES // n_values))
    with modes_restored(network):
        network.eval()
        try:
            for layer in layers:
                layer.momentum = 1.0  # the statistics of the last batch
                layer.train()
            while not _gather_statistics_(network, layers, calibration, normalise, device, n_at_once):
                n_at_once //= 2
                logger.warning("out of memory: batch-norm statistics from %d images at once", n_at_once)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


def _gather_statistics_(
    network: nn.Module,
    layers: Sequence[_BatchNorm],
    calibration: Split,
    normalise: Callable[[Tensor], Tensor],
    device: str | torch.device,
    n_at_once: int,
) -> bool:
    """Let batch norms in training mode see the calibration images; return whether there was memory for it."""
    gathered = [_GatheredStatistics(layer) for layer in layers]
    n_batches = -(-len(calibration) // n_at_once)
    try:
        for positions in torch.arange(len(calibration)).tensor_split(n_batches):
            network(normalise(calibration.inputs[positions].to(device)))
    except SHORTAGE_ERRORS as error:
        if not is_out_of_memory(error) or n_at_once < 2 * LEAST_AT_ONCE:
            raise
        return False
    finally:
        for one in gathered:
            one.handle.remove()
    for one in gathered:
        one.store_()
    return True


class _GatheredStatistics:
    """Mean and variance of all that a batch norm of momentum 1 sees, put together batch by batch.

    Args:
        layer: In training mode; until `store_` its statistics are those of the last batch.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.reset_running_stats()
        self.last_mean, self.last_variance = layer.running_mean, layer.running_var
        self.n_features, self.n_values = layer.num_features, 0  # the latter of each channel
        self.mean = torch.zeros_like(self.last_mean, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)  # summed, of the distances from the mean
        self.handle = layer.register_forward_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        """Take in the batch that the layer has just seen."""
        n_new = outputs.numel() // self.n_features
        n_all = self.n_values + n_new
        away = self.last_mean.double() - self.mean
        self.mean += away * (n_new / n_all)
        self.squares += self.last_variance.double() * (n_new - 1) + away**2 * (self.n_values * n_new / n_all)
        self.n_values = n_all

    def store_(self) -> None:
        """Give the layer what was gathered.

        One that saw nothing keeps the values of a new one, one that is not called as a module, so that no
        hook hears of it, those of the last batch.
        """
        if self.n_values:
            self.last_mean.copy_(self.mean)
            self.last_variance.copy_(self.squares / (self.n_values - 1))


def _read_architecture(
    architecture: Architecture | Mapping[str, int] | Sequence[int] | str | float | None, grouping: Grouping
) -> Architecture:
    """Return a whole, valid architecture from any of the forms that `prune` takes."""
    if isinstance(architecture, str):
        return Architecture.parse(architecture, grouping)
    if isinstance(architecture, int | float):
        return Architecture.uniform(grouping, architecture)
    assert architecture is not None
    if not isinstance(architecture, Mapping):
        return Architecture.parse(",".join(str(n_kept) for n_kept in architecture), grouping)
    return Architecture({**Architecture.full(grouping), **architecture}).validate(grouping)
