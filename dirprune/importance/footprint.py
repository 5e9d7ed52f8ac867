"""How much memory a pass through the network takes, so that batches are no larger than what is allowed."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from dirprune.device import SHORTAGE_ERRORS, is_out_of_memory
from dirprune.importance.base import ScoringContext
from dirprune.importance.fresh_norm import lacks_statistics
from dirprune.importance.parts import Shortage
from dirprune.switches import switched

N_EXAMPLES = 2  # a batch of one is a special case to some layers
N_ALIVE = 4
"""Values as large as the largest one that are there at once where nothing is kept for derivatives."""


def allow(
    context: ScoringContext, batch_size: int, is_differentiated: bool = True, n_bytes_beside: int = 0
) -> Shortage:
    """Return a shortage from which batches start as small as the allowed memory asks for.

    Those from which batch norm takes statistics, as it has stored none, stay whole.

    Args:
        context: `memory_mb` is what is allowed; where a single example takes more, batches are of one.
        batch_size: Examples that one would like to take at once, >= 1.
        is_differentiated: Whether derivatives with respect to switches are taken.
        n_bytes_beside: What else each example takes.
    """
    if any(map(lacks_statistics, context.network.modules())):
        return Shortage(said=context.said, is_divisible=False)
    n_taken = min(batch_size, len(context.calibration))
    n_fitting = float(n_taken)
    if n_taken and context.grouping.groups:
        try:
            n_bytes = n_bytes_beside + measure_footprint(context, is_differentiated)
            n_fitting = (context.memory_mb << 20) / max(1, n_bytes)
        except SHORTAGE_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            n_fitting = 1.0  # where not even that works, whoever takes one says so
    n_halvings = max(0, math.ceil(math.log2(max(1, n_taken) / max(1.0, n_fitting))))
    return Shortage(n_halvings, context.said)


def measure_footprint(context: ScoringContext, is_differentiated: bool) -> int:
    """Return about how many bytes a pass takes for each example, beside the network and the images.

    Differentiated, it is what the pass saves for its derivatives; otherwise some of its largest values.
    """
    inputs = context.load(slice(0, N_EXAMPLES))[0].clone()  # a part of all images would count as all of them
    weights = {
        tensor.untyped_storage().data_ptr()
        for tensor in itertools.chain(context.network.parameters(), context.network.buffers())
    }
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    ones = {
        group.name: torch.ones(len(inputs), group.n_channels, device=inputs.device, requires_grad=True)
        for group in context.grouping.groups
    }
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        switched(context.network, context.grouping, ones),
    ):
        outputs = context.network(inputs)
    sizes = [inputs.nbytes, outputs.nbytes, *seen.values()]
    return (sum(sizes) if is_differentiated else N_ALIVE * max(sizes)) // len(inputs)
