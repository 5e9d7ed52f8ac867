"""Batch norm by the statistics of the examples at hand, as recalibration after pruning would leave it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dirprune.errors import ImportanceError
from dirprune.importance.base import ScoringContext
from dirprune.layers import find_activation

N_FOR_STATISTICS = 250


class FreshNorm(nn.Module):
    """Normalises each coalition's examples by their own mean and variance; weight and bias stay.

    Args:
        norm: The batch norm in whose place it is; where it activates, so does this.

    Attributes:
        n_coalitions: How many coalitions the rows hold one after the other; set before each pass.
        is_chosen: Whether the network has statistics of its own, which are left aside.
    """

    n_coalitions = 1

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.n_features, self.eps = norm.num_features, norm.eps
        self.is_chosen = not lacks_statistics(norm)
        self.activation = find_activation(norm)

    def forward(self, values: Tensor) -> Tensor:
        """Return normalised (and activated) values of shape (n_coalitions * n, n_features, ...)."""
        parts = values.chunk(self.n_coalitions)
        normalised = [self._normalise(part) for part in parts]
        return self.activation(torch.cat(normalised) if len(parts) > 1 else normalised[0])

    def _normalise(self, values: Tensor) -> Tensor:
        if values.numel() == self.n_features:  # a single number has no variance
            shape = [1, -1] + [1] * (values.dim() - 2)
            return torch.zeros_like(values) + (0 if self.bias is None else self.bias.reshape(shape))
        return F.batch_norm(values, None, None, self.weight, self.bias, training=True, eps=self.eps)


def with_fresh_norms(context: ScoringContext, are_all: bool = True) -> ScoringContext:
    """Return the context with a copy of the network in which batch norms are `FreshNorm`s.

    Args:
        are_all: Otherwise only those that use the examples' own statistics anyway.
    """

    def is_replaced(module: nn.Module) -> bool:
        return isinstance(module, _BatchNorm) if are_all else lacks_statistics(module)

    if not any(map(is_replaced, context.network.modules())):
        return context
    network = copy.deepcopy(context.network)
    fresh: dict[int, FreshNorm] = {}  # one for each, under however many names it is known
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if is_replaced(module):
            network.set_submodule(path, fresh.setdefault(id(module), FreshNorm(cast(_BatchNorm, module))))
    return dataclasses.replace(context, network=network)


def lacks_statistics(module: nn.Module) -> bool:
    """Return whether a module is a batch norm without stored statistics, which uses the examples' own."""
    return isinstance(module, _BatchNorm) and module.running_mean is None


def find_fresh_norms(network: nn.Module) -> list[FreshNorm]:
    """Return the network's `FreshNorm` modules."""
    return [module for module in network.modules() if isinstance(module, FreshNorm)]


def count_in_part(n_examples: int) -> int:
    """Return into parts of how many examples a split is cut, for statistics from about 250 examples each."""
    n_parts = -(-n_examples // N_FOR_STATISTICS)
    return -(-n_examples // max(n_parts, 1))


def tell_no_statistics(what: str, n_examples: int, norms: Sequence[FreshNorm] = ()) -> ImportanceError:
    """Return the error that says that fewer examples at once, which fit, would have other statistics.

    Args:
        norms: Those of the network that is judged, where statistics may have been left aside by an option.
    """
    is_optional = bool(norms) and all(norm.is_chosen for norm in norms)
    hint = (
        f"try recalibrate=false, or n_examples below {n_examples}"
        if is_optional
        else "store statistics in the network"
    )
    return ImportanceError(
        f"{what}: expected memory for {n_examples} examples at once, from which batch norm takes its "
        f"statistics, got out of memory; free some, use another device, or {hint}"
    )
