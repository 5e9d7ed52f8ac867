"""Notices when a network was changed: weights, buffers, mode, requires_grad, gradients and hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fingerprint:
    """A copy of everything in a network that borrowing it must not change."""

    tensors: dict[str, Tensor]
    flags: dict[str, Any]

    @classmethod
    def of(cls, network: nn.Module) -> Fingerprint:
        """Remember the state of a network; costs one copy of its weights."""
        return cls({name: value.clone() for name, value in _tensors(network).items()}, _flags(network))

    def difference(self, network: nn.Module) -> str | None:
        """Return the first difference in words, such as "other values in 'conv1.weight'", or None."""
        tensors, flags = _tensors(network), _flags(network)
        for name in {**self.tensors, **tensors}:
            if name not in tensors or name not in self.tensors:
                return f"a tensor {name!r} {'gone' if name not in tensors else 'added'}"
            if not _equal(self.tensors[name], tensors[name]):
                return f"other values in {name!r}"
        for name in {**self.flags, **flags}:
            if self.flags.get(name) != flags.get(name):
                return f"another {name} ({self.flags.get(name)} before, {flags.get(name)} after)"
        return None


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in [*network.named_parameters(), *network.named_buffers()]}


def _equal(before: Tensor, after: Tensor) -> bool:
    """Return whether two tensors hold the same values, NaN being equal to itself."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return bool(torch.all((before == after) | ((before != before) & (after != after))))


def _flags(network: nn.Module) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    for name, module in network.named_modules():
        flags[f"mode of {name!r}"] = module.training
        flags[f"number of hooks on {name!r}"] = (
            len(module._forward_hooks)
            + len(module._forward_pre_hooks)
            + len(module._backward_hooks)
            + len(module._backward_pre_hooks)
        )
    for name, parameter in network.named_parameters():
        flags[f"requires_grad of {name!r}"] = parameter.requires_grad
        flags[f"gradient of {name!r}"] = None if parameter.grad is None else "some"
    return flags
