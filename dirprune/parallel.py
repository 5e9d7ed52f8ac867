"""Several workers train one network: each computes its part of every batch, and all take the same step.

Torch's `DistributedDataParallel` adds the gradients up while they are computed. Batch norm sees the whole
batch too, so that the result is that of one worker, up to rounding.
"""

from __future__ import annotations

import copy
import datetime
import inspect
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from dirprune.layers import find_activation
from dirprune.recipe import Recipe
from dirprune.training_state import Segment, TrainingState

LOOPBACK = "127.0.0.1"
LOOPBACK_DEVICE = "lo"
PATIENCE = datetime.timedelta(minutes=10)
"""How long a worker waits for the others in one exchange."""


@dataclass(frozen=True)
class Share:
    """Which part of every batch a worker computes.

    Attributes:
        rank: The worker's place; 0 leads.
        n_workers: All of them.
    """

    rank: int = 0
    n_workers: int = 1

    def of(self, n_images: int) -> tuple[slice, int]:
        """Return this worker's part of a batch, and by how many images its summed loss is to be divided.

        Where there are fewer images than workers, each computes all of them.
        """
        if n_images < self.n_workers:
            return slice(0, n_images), n_images * self.n_workers
        edges = [n_images * rank // self.n_workers for rank in (self.rank, self.rank + 1)]
        return slice(*edges), n_images


@dataclass(frozen=True)
class Job:
    """What the workers beside the one that leads need to know of a training.

    Attributes:
        network: The network as it begins, on the CPU.
        recipe: How to train.
        seed: As the one that leads has it.
        teacher: For distillation, on the CPU.
        state: Where the training stands.
        in_halves: Whether all compute their part of each batch in two halves from the beginning.
    """

    network: nn.Module
    recipe: Recipe
    seed: int
    teacher: nn.Module | None
    state: TrainingState | None
    in_halves: bool = False


class MemoryShortage(Exception):  # noqa: N818  (named for what happened)
    """Memory ran out in a step that several workers share, and none computes in halves yet."""


@dataclass(frozen=True)
class Part:
    """What a worker says of the steps that it was told to take.

    Attributes:
        summed: Its part of the loss summed over their images.
        randomness: States of its generators after them.
        unreadable: The images that it has left out so far, see `ImageIndex.broken`.
    """

    summed: float
    randomness: dict[str, Tensor]
    unreadable: Mapping[int, str] = field(default_factory=dict)


class Crew(Protocol):
    """The workers beside the one that leads. All belong to one process group of torch."""

    @property
    def n_workers(self) -> int:
        """All of them, the one that leads too."""

    def begin(self, job: Job, note_shortage: Callable[[], None]) -> Callable[[], None]:
        """Let all take up a training; what is returned waits until they have.

        Args:
            job: The training.
            note_shortage: Makes sure that the training goes on in halves, wherever it is taken up again.
        """

    def advance(self, segments: Sequence[Segment], until: int) -> Callable[[], list[Part]]:
        """Let each train its segment up to a step; what is returned waits for what they say."""

    def give_up(self) -> NoReturn:
        """Note the shortage of memory and end this process and the others: none knows how far they are."""

    def explain(self, error: Exception) -> Exception:
        """Return why an exchange with them failed: their own error, if one of them had any."""


def choose_backend(device: str | torch.device) -> str:
    """Return by what workers on such a device exchange tensors: NCCL takes those of GPUs alone."""
    return "nccl" if torch.device(device).type == "cuda" else "gloo"


def join(
    share: Share, host: str, port: int, device: str | torch.device, listener: socket.socket | None = None
) -> None:
    """Enter the process group; returns when all have.

    On one machine everything stays on its loopback device; gloo and NCCL take it from the environment.

    Args:
        share: The worker's place.
        host: Address of the one that leads.
        port: Where it listens.
        device: Where the worker computes.
        listener: Of the one that leads: a socket that is bound to both. It is used up.
    """
    if host == LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK_DEVICE)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", LOOPBACK_DEVICE)
    store = dist.TCPStore(
        host,
        port,
        share.n_workers,
        is_master=listener is not None,
        timeout=PATIENCE,
        wait_for_workers=False,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    dist.init_process_group(
        choose_backend(device), store=store, rank=share.rank, world_size=share.n_workers, timeout=PATIENCE
    )


def spread_out(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> nn.Module:
    """Return the network as all workers train it together; parameters and buffers become the leader's.

    Args:
        network: On the worker's device.
        loss: Computes any loss of a network, from which it is seen whether all parameters get gradients.
    """
    is_renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    apart: dict[str, Any] = {"forward_sync_buffers" if is_renamed else "broadcast_buffers": False}
    return DistributedDataParallel(network, find_unused_parameters=_has_unused(network, loss), **apart)


def _has_unused(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> bool:
    probe = copy.deepcopy(network).eval()
    loss(probe).backward()
    return any(p.requires_grad and p.grad is None for p in probe.parameters())


@contextmanager
def norms_synchronised(network: nn.Module) -> Iterator[None]:
    """Let batch norm take its statistics over the parts of all workers for a while, in training mode.

    Torch's own `SyncBatchNorm` would only do so on GPUs.

    Raises:
        ConfigurationError: As `find_activation`.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    activations = [find_activation(norm) for norm in norms]
    for norm, activation in zip(norms, activations, strict=True):
        norm.forward = partial(_normalise, norm, activation)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalise(norm: _BatchNorm, activation: nn.Module, inputs: Tensor) -> Tensor:
    """Do what batch norm does, with mean and variance of all workers' inputs, shape (n, channels, ...)."""
    if not norm.training:
        return type(norm).forward(norm, inputs)
    values = inputs if inputs.dtype == torch.float64 else inputs.float()
    variance, mean = torch.var_mean(values, [axis for axis in range(inputs.ndim) if axis != 1], correction=0)
    own = torch.cat([mean, variance, values.new_full((1,), values.numel() / len(mean))])
    others = own.new_zeros(len(own))
    placed = [own if rank == dist.get_rank() else others for rank in range(dist.get_world_size())]
    rows = _Added.apply(torch.stack(placed))
    means, variances, counts = rows[:, : len(mean)], rows[:, len(mean) : -1], rows[:, -1:].detach()
    total = counts.sum()
    weights = counts / total
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean) ** 2)).sum(0)
    _update_statistics_(norm, mean.detach(), (variance * total / (total - 1).clamp(min=1)).detach())
    shape = [1, -1] + [1] * (inputs.ndim - 2)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    outputs = (values - mean.view(shape)) * scale.view(shape)
    if norm.affine:
        outputs = outputs + norm.bias.view(shape)
    return activation(outputs.to(inputs.dtype))


@torch.no_grad()
def _update_statistics_(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    weight = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), weight)


class _Added(torch.autograd.Function):
    """The sum over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
