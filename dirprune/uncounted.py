"""Find parameters whose multiply-accumulates nobody counts: of recurrent layers and of functional calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.layers import CONVOLUTIONS, copy_for_evaluation, output_tensors, run_example

N_NAMED = 3

_PRODUCTS = re.compile(
    r"Addmm|Mm|Bmm|Baddbmm|Addbmm|Addmv|Mv|Dot|Linear|Trilinear|\w*(Convolution|Rnn|Lstm|Gru)"
)
_LOOK_UPS = re.compile(r"Embedding")
"""Beginnings of autograd's names of what multiplies and sums up, and of what finds rows of a table."""


@dataclass(frozen=True)
class Uncounted:
    """A module whose parameters enter products outside of the layers that are counted.

    Attributes:
        name: Its path and type; for parameters of the network itself, the parameter's name.
        n_parameters: Elements of those parameters.
        is_functional: Whether the products are calls of functions, rather than what a layer of torch does.
    """

    name: str
    n_parameters: int
    is_functional: bool


def find_uncounted(network: nn.Module, example_input: Tensor) -> list[Uncounted]:
    """Find modules whose parameters multiply inputs without being counted among the MACs.

    Convolutions, linear layers and attention count where they are called. Parameters that scale or shift
    channels, embeddings and tables of positions enter no product and are not found.

    Args:
        network: Any network; it is not touched.
        example_input: One batch, shape (batch, ...), of which the first example is used.
    Returns:
        In the order of the network's modules.
    Raises:
        ConfigurationError: If the network fails on the example input.
    """
    copied = copy_for_evaluation(network)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    example = example_input[:1].detach().cpu().clone()
    example.requires_grad_(example.is_floating_point())
    called: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda layer, *_: called.add(layer))
        for module in copied.modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear, nn.MultiheadAttention))
    ]
    try:
        with torch.enable_grad():
            outputs = output_tensors(run_example(copied, example.clone()))
    finally:
        for hook in hooks:
            hook.remove()
    counted: set[Tensor] = {parameter for layer in called for parameter in layer.parameters()}
    entering = _find_entering(outputs, example, counted)
    found: dict[str, Uncounted] = {}
    for path, module in copied.named_modules():
        own = {name: p for name, p in module.named_parameters(recurse=False) if p in entering}
        for name, parameter in own.items():
            entering.discard(parameter)  # that of the next module with the same one
            key = f"{path} ({type(module).__name__})" if path else name
            n_before = found[key].n_parameters if key in found else 0
            is_functional = not isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.Bilinear))
            found[key] = Uncounted(key, n_before + parameter.numel(), is_functional)
    return list(found.values())


def warn_of_uncounted(network: nn.Module, example_input: Tensor) -> str | None:
    """Return a warning of one line where a network has parameters whose MACs are not counted, else None.

    Raises:
        ConfigurationError: If the network fails on the example input.
    """
    found = find_uncounted(network, example_input)
    if not found:
        return None
    n_found = sum(each.n_parameters for each in found)
    share = 100 * n_found / sum(parameter.numel() for parameter in network.parameters())
    more = f" and {len(found) - N_NAMED} more" if len(found) > N_NAMED else ""
    return (
        f"WARNING: {n_found:,} parameters ({share:.1f}%) lie in layers whose MACs are not counted: "
        f"{', '.join(each.name for each in found[:N_NAMED])}{more}"
    )


def _find_entering(outputs: Sequence[Tensor], data: Tensor, counted: set[Tensor]) -> set[Tensor]:
    """Return the parameters that enter products, but for those into which a counted one enters.

    An operand of a product counts as weights if it depends on parameters and not on data.

    Args:
        outputs: Of the network, with their history.
        data: What the network was given, as a leaf.
        counted: Parameters of layers that are counted.
    """
    weights: dict[Any, frozenset[Tensor] | None] = {}
    entering: set[Tensor] = set()
    for node in _walk(outputs):
        operands = [weights[operand] for operand, _ in node.next_functions if operand is not None]
        if hasattr(node, "variable"):
            weights[node] = None if node.variable is data else frozenset({node.variable})
        elif None in operands or _LOOK_UPS.match(node.name()):
            weights[node] = None
        else:
            weights[node] = frozenset().union(*filter(None, operands))
        if _PRODUCTS.match(node.name()):
            multiplied = frozenset[Tensor]().union(*filter(None, operands))
            if not multiplied & counted:
                entering |= multiplied
    return entering


def _walk(outputs: Sequence[Tensor]) -> Iterator[Any]:
    """Yield every node of the outputs' history once, operands first."""
    seen = set()
    waiting = [(tensor.grad_fn, False) for tensor in outputs if tensor.grad_fn is not None]
    while waiting:
        node, is_ready = waiting.pop()
        if is_ready:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(operand, False) for operand, _ in node.next_functions if operand is not None]
