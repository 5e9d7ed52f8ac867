"""Why channel groups cannot be cut, in words of the network rather than of the tracer."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, one_line
from dirprune.groups import Slot
from dirprune.layers import is_norm_over_channels
from dirprune.surgery import DIFFERING
from dirprune.uncounted import find_uncounted

N_NAMED = 3


class LostChannels:
    """What errors of the tracer, about its lists of indices, mean for a user.

    Args:
        network: What is traced; it is not touched.
        batch: As the network takes it.
    """

    def __init__(self, network: nn.Module, batch: Tensor) -> None:
        self.network, self.batch = network, batch

    @cached_property
    def functional(self) -> list[str]:
        """Names of what has parameters that enter functional calls."""
        try:
            found = find_uncounted(self.network, self.batch)
        except Exception as error:
            if isinstance(error, ConfigurationError) or is_out_of_memory(error):
                return []  # it runs only without gradients, which tells nothing
            raise
        return [each.name for each in found if each.is_functional]

    def explain(self, error: Exception) -> str:
        """Return the likely reason in one line."""
        detail = "" if isinstance(error, IndexError) else f" ({one_line(error, has_type=True)})"
        if self.functional:
            more = ", ..." if len(self.functional) > N_NAMED else ""
            return (
                "where channels go is lost, most likely in a functional convolution or product with "
                "parameters of its own, which cannot be followed: "
                f"{', '.join(self.functional[:N_NAMED])}{more}; try a layer such as nn.Conv2d{detail}"
            )
        return (
            "where channels go is lost, as behind a slice or split, a shuffle, a reshape or a product of "
            f"layers{detail}"
        )


def find_cause(reason: str, is_padded: bool) -> str:
    """Return the likely cause, as the end of the reason, if a group that was cut computes something else.

    Args:
        reason: From `check_masked_equals_compact`, which cut this group alone.
        is_padded: Whether there are shortcuts behind the group that pad channels.
    """
    if not reason.startswith(DIFFERING):
        return ""
    if is_padded:
        return ", as behind shortcuts that pad"
    return (
        ", as where channels are mixed or normalised outside of layers: a softmax or norm over channels, "
        "a shuffle or reshape, attention"
    )


def explain_norm(path: str) -> str:
    """Return why nothing can be cut where a norm takes all channels together."""
    return f"{path!r} normalises over its channels: without one, all others change"


def pads_channels(grad_fn: Any, layer: nn.Module) -> bool:
    """Return whether a step of the network's history pads the layer's channels: axis 1, of rows the last."""
    pads = getattr(grad_fn, "_saved_pad", None)  # of both ends of the last axis, of the one before, ...
    if pads is None:
        return False
    n_axes = len(grad_fn._input_metadata[0].shape)
    padded = {n_axes - 1 - place // 2 for place, n_padded in enumerate(pads) if n_padded}
    return (n_axes - 1 if isinstance(layer, nn.Linear) else 1) in padded


def find_reasons(slot: Slot, module: Any, n_channels: int, is_split: bool) -> list[str]:
    """Return why a group with this slot cannot be cut, if anything speaks against it before it is tried.

    Args:
        slot: One axis that the group occupies.
        module: Whose axis it is.
        n_channels: Of the group.
        is_split: Whether the group's channels go through a chunk, a split or a slice.
    """
    if isinstance(module, (nn.MultiheadAttention, nn.LSTM)):
        return [f"{slot.module!r} is a {type(module).__name__}, which is not cut"]
    if is_norm_over_channels(module):
        return [explain_norm(slot.module)]
    if isinstance(module, nn.Module) and not isinstance(getattr(module, "weight", None), nn.Parameter | None):
        return [
            f"the weights of {slot.module!r} are computed for each pass, as by weight_norm or spectral_norm; "
            'try torch.nn.utils.parametrize.remove_parametrizations(module, "weight") first'
        ]
    sizes = Counter(channel for channel in slot.channel_of if channel >= 0)
    if len(sizes) < n_channels and is_split:
        return [
            f"its outputs are split between branches (chunk, split or slice): only some enter {slot.module!r}"
        ]
    if len(sizes) < n_channels or len(set(sizes.values())) > 1:
        return [f"its channels take unequal shares of {slot.module!r}"]
    return []
