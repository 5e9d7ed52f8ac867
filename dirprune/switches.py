"""Multiply channels where they enter their consumers: switches and masks without changing a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping, Slot


@contextmanager
def switched(network: nn.Module, grouping: Grouping, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """Multiply the channels of groups by `values` inside the `with` block, at the input of every consumer.

    There, after batch norm and activation, a zero does exactly what removing the channel does. Gradients flow
    into `values`; all consumers of a group share them.

    Args:
        network: Network to run; it carries hooks inside the block and none of them after it.
        grouping: Its channel groups.
        values: For some or all groups, one factor per channel, shape (n_channels,), or per example and
            channel, shape (batch, n_channels).
    Raises:
        ConfigurationError: If a group is unknown or the shape of its values does not fit.
    """
    n_channels = grouping.n_channels
    for name, factors in values.items():
        if name not in n_channels:
            raise ConfigurationError(
                f"expected values for channel groups {', '.join(n_channels)}, got {name!r}"
            )
        if factors.dim() not in (1, 2) or factors.shape[-1] != n_channels[name]:
            raise ConfigurationError(
                f"expected values of shape ({n_channels[name]},) or (batch, {n_channels[name]}) "
                f"for {name!r}, got {tuple(factors.shape)}"
            )
    slots: dict[str, list[tuple[Slot, Tensor]]] = {}
    for name, factors in values.items():
        for slot in grouping[name].consumers:
            slots.setdefault(slot.module, []).append((slot, factors))
    hooks = []
    try:
        for path, parts in slots.items():
            hook = _Multiply([(_index(slot.channel_of, factors.device), factors) for slot, factors in parts])
            hooks.append(network.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))
        yield network
    finally:
        for handle in hooks:
            handle.remove()


@lru_cache(maxsize=1024)
def _index(channel_of: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the channel at each position, on the device: copying it there anew waits for the device."""
    with torch.inference_mode(False):  # whoever computes gradients later gets the same tensor
        return torch.tensor(channel_of, device=device)


class _Multiply:
    """Forward pre-hook of one consumer; `parts` pairs each position's index into the factors with them."""

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.parts = parts

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        layer_input = args[0] if args else kwargs["input"]
        axis = layer_input.dim() - 1 if isinstance(layer, nn.Linear) else 1
        for index, factors in self.parts:
            per_channel = torch.cat([factors, factors.new_ones(*factors.shape[:-1], 1)], dim=-1)
            per_position = per_channel[..., index]  # index -1, of another group, finds the 1 at the end
            shape = [1] * layer_input.dim()
            shape[axis] = per_position.shape[-1]
            if factors.dim() == 2:
                if axis == 0 or layer_input.shape[0] != factors.shape[0]:
                    raise ConfigurationError(
                        f"expected values for the {layer_input.shape[0]} rows that enter the layer, "
                        f"got {factors.shape[0]}; try values of shape (n_channels,)"
                    )
                shape[0] = factors.shape[0]
            layer_input = layer_input * per_position.reshape(shape).to(layer_input)
        return ((layer_input, *args[1:]), kwargs) if args else ((), {**kwargs, "input": layer_input})


def mask(grouping: Grouping, kept: Mapping[str, Sequence[int] | Tensor]) -> dict[str, Tensor]:
    """Return values for `switched` that keep the given channels and put zeros in place of the others.

    Args:
        grouping: The network's channel groups.
        kept: Indices of the kept channels, for some or all groups.
    Returns:
        For each group in `kept`, zeros and ones of shape (n_channels,), float32.
    Raises:
        ArchitectureError: If a group is unknown or its indices are not distinct channels of it.
    """
    values = {}
    for name, indices in grouping.checked_kept(kept).items():
        values[name] = torch.zeros(grouping[name].n_channels)
        values[name][indices] = 1.0
    return values
