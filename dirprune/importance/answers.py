"""What a network answers to a few examples, as plain data that is the same on every machine."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

N_EXAMPLES = 2  # a batch of one is a special case to some layers
MOST_VALUES = 16  # of each output in float32: the fewer, the more seldom one of them lies at a boundary
UNITS = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Of the largest value, rounded to a power of ten: how far values are told apart. Far above what threads and
machines round differently, which is about 1e-14 and 1e-6 of it."""
OFFSET = 1 / math.pi
"""Puts the boundaries of units where whole and half numbers never are."""


def describe_answers(network: nn.Module, inputs: Tensor) -> list[Any] | None:
    """Return what a network answers to the first inputs, up to rounding.

    That tells what no look at its code does: which function an attribute holds, and what helpers do. It is
    computed on the CPU, in evaluation mode and in float64, so that the answer is the same whatever the
    device, the number of threads and the machine: by chance a value lies so near to a boundary that two
    machines see it on different sides about once in a million networks. Where float64 does not work, float32
    and much coarser steps are used: once in some hundred networks; what is kept under the answer is then
    computed once more.

    Args:
        network: Left as it is; a copy is run.
        inputs: As the network takes them, shape (n, ...).
    Returns:
        For each tensor of the output its shape and its values in whole units; None where there are no
        inputs, the network does not run on the CPU, or it answers the same inputs in different ways.
    """
    if len(inputs) == 0:
        return None
    inputs = inputs[:N_EXAMPLES].detach()
    for dtype in UNITS:
        try:
            first, second = _run_twice(network, inputs, dtype)
        except Exception:  # of whatever kind: a network that fails fails again where its scores are asked for
            continue
        return first if first == second else None
    return None


@torch.no_grad()
def _run_twice(network: nn.Module, inputs: Tensor, dtype: torch.dtype) -> list[list[Any]]:
    """Return what a copy in a type of floating-point numbers answers when asked, and when asked again."""
    tensors = [*network.parameters(), *network.buffers()]
    copied = copy.deepcopy(network, {id(tensor): _convert(tensor.detach(), dtype) for tensor in tensors})
    for module in copied.eval().modules():
        carried = {name: value for name, value in vars(module).items() if name[0] != "_"}
        vars(module).update(tree_map_only(Tensor, lambda tensor: _convert(tensor, dtype), carried))
    answers = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the CPU's alone
            outputs = copied(_convert(inputs, dtype))
        answers.append([_describe(leaf, dtype) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)])
    return answers


def _convert(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of a tensor on the CPU; floating-point numbers in one type, others as they are."""
    return tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _describe(output: Tensor, dtype: torch.dtype) -> list[Any]:
    """Return an output's shape, the exponent of its unit, and its values in that unit."""
    values = (torch.view_as_real(output) if output.is_complex() else output).double().flatten().numpy()
    if dtype != torch.float64:
        values = values[:: max(1, len(values) // MOST_VALUES)]
    is_finite = np.isfinite(values)
    largest = float(np.abs(values[is_finite]).max(initial=0))
    exponent = math.floor(math.log10(largest) + OFFSET) if largest > 0 else 0
    steps = np.floor(np.where(is_finite, values, 0) / 10.0**exponent / UNITS[dtype] + OFFSET)
    told = [
        int(step) if is_known else str(value)
        for step, is_known, value in zip(steps, is_finite, values, strict=True)
    ]
    return [list(output.shape), exponent, told]
