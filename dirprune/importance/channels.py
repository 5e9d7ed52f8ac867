"""Reads a channel group's own weights, and finds channels that nothing depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.layers import CONVOLUTIONS


def own_weights(network: nn.Module, group: ChannelGroup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights that make a group's channels, one convolution or linear layer at a time.

    Yields:
        channel_of: The channel that each row belongs to, shape (n_rows,), -1 for none.
        rows: The weights of each index of the layer's output axis, shape (n_rows, n_weights).
    """
    modules = dict(network.named_modules())
    for slot in group.producers:
        module = modules.get(slot.module)
        if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            continue
        weight = module.weight.detach()
        is_transposed = not isinstance(module, nn.Linear) and module.transposed and module.groups == 1
        rows = (weight.transpose(0, 1) if is_transposed else weight).flatten(1)
        yield torch.tensor(slot.channel_of, device=rows.device), rows


@torch.no_grad()
def find_dead_channels(network: nn.Module, grouping: Grouping, inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """Find the channels whose removal changes no output for any of the inputs.

    A channel is dead when at every place where it enters a consumer its values are all zero, or the
    consumer's weights are. Reading stops as soon as no channel can still be dead.

    Args:
        network: In evaluation mode; left as it is.
        inputs: Batches that the network takes.
    Returns:
        For each group whether its channels are dead, bool tensors of shape (n_channels,) on the CPU.
    """
    consumers = {slot.module for group in grouping.groups for slot in group.consumers}
    used = {path: _used_by_weights(network.get_submodule(path)) for path in consumers}
    reached: dict[str, Tensor] = {}

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            values = arguments[0] if arguments else keywords["input"]
            axis = values.dim() - 1 if isinstance(module, nn.Linear) else 1
            some = values.ne(0).movedim(axis, 0).flatten(1).any(dim=1).cpu()
            reached[path] = reached[path] | some if path in reached else some

        return module.register_forward_pre_hook(look, with_kwargs=True)

    handles = [watch(path, network.get_submodule(path)) for path in sorted(consumers)]
    try:
        dead = {group.name: torch.ones(group.n_channels, dtype=torch.bool) for group in grouping.groups}
        for batch in inputs:
            network(batch)
            dead = {
                group.name: ~_is_live(group.n_channels, group.consumers, reached, used)
                for group in grouping.groups
            }
            if not any(bool(is_dead.any()) for is_dead in dead.values()):
                break
    finally:
        for handle in handles:
            handle.remove()
    return dead


def _is_live(
    n_channels: int, consumers: tuple[Slot, ...], reached: dict[str, Tensor], used: dict[str, Tensor | None]
) -> Tensor:
    is_live = torch.zeros(n_channels, dtype=torch.bool)
    for slot in consumers:
        if slot.module not in reached:
            continue
        weighted = used[slot.module]
        is_open = reached[slot.module] if weighted is None else reached[slot.module] & weighted
        channel_of = torch.tensor(slot.channel_of)
        is_live[channel_of[is_open & (channel_of >= 0)]] = True
    return is_live


def _used_by_weights(module: nn.Module) -> Tensor | None:
    """Return for each index of a layer's input axis whether any weight on it is not zero; None if unknown."""
    if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        return None
    is_transposed = not isinstance(module, nn.Linear) and module.transposed
    by_input = module.weight if is_transposed else module.weight.transpose(0, 1)
    return by_input.ne(0).flatten(1).any(dim=1).cpu()
