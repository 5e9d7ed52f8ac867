"""Finds channels that nothing depends on."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.groups import Slot
from dirprune.identity import digest
from dirprune.importance.base import ScoringContext
from dirprune.importance.cache import ScoreCache, context_key
from dirprune.importance.footprint import allow
from dirprune.importance.fresh_norm import count_in_part
from dirprune.layers import CONVOLUTIONS

DEAD_VERSION = 1  # raised when the same images show other channels dead
WHAT = "channels that are dead"
MAX_BATCH = 64  # nearly always the first one shows every channel alive


def find_dead_channels(context: ScoringContext) -> dict[str, Tensor]:
    """Find the channels whose removal changes no output for any of the calibration images.

    A channel is dead when at every place where it enters a consumer its values are all zero, or the
    consumer's weights are. Reading stops as soon as no channel can still be dead; where one is, it comes to
    all images, so that what is found is kept in the workspace, for every method.

    Args:
        context: The network must be in evaluation mode; it is left as it is. As many images are taken at
            once as the memory allows.
    Returns:
        For each group whether its channels are dead, bool tensors of shape (n_channels,) on the CPU.
    Raises:
        ImportanceError: If there is not enough memory for one image.
    """
    if context.workspace is None or not context.grouping.groups:
        return _look(context)
    key = digest({"dead_version": DEAD_VERSION, "context": context_key(context)})
    return ScoreCache(context.workspace / "dead").get_or_compute(key, partial(_look, context))[0]


@torch.no_grad()
def _look(context: ScoringContext) -> dict[str, Tensor]:
    """Return what `find_dead_channels` does, from the images."""
    network, groups = context.network, context.grouping.groups
    consumers = {slot.module for group in groups for slot in group.consumers}
    used = {path: _used_by_weights(network.get_submodule(path)) for path in consumers}
    reached: dict[str, Tensor] = {}

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            values = arguments[0] if arguments else keywords["input"]
            axis = values.dim() - 1 if isinstance(module, nn.Linear) else 1
            some = values.ne(0).movedim(axis, 0).flatten(1).any(dim=1).cpu()
            reached[path] = reached[path] | some if path in reached else some

        return module.register_forward_pre_hook(look, with_kwargs=True)

    def run(positions: Tensor) -> None:
        network(context.load(positions)[0])

    dead = {group.name: torch.ones(group.n_channels, dtype=torch.bool) for group in groups}
    if not groups:
        return dead
    shortage = allow(context, MAX_BATCH, is_differentiated=False)
    handles = [watch(path, network.get_submodule(path)) for path in sorted(consumers)]
    try:
        n_images = len(context.calibration)
        size = MAX_BATCH if shortage.is_divisible else count_in_part(n_images)
        for batch in torch.arange(n_images).split(size):
            shortage.compute_in_parts(batch, run, WHAT)
            dead = {
                group.name: ~_is_live(group.n_channels, group.consumers, reached, used) for group in groups
            }
            are_all_alive = not any(bool(is_dead.any()) for is_dead in dead.values())
            if context.progress is not None and n_images > size and not (are_all_alive and batch[0] == 0):
                context.progress(WHAT, n_images if are_all_alive else int(batch[-1]) + 1, n_images)
            if are_all_alive:
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
