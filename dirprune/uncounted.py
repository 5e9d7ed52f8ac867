"""Find parameters whose multiply-accumulates nobody counts: of recurrent layers and of functional calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, one_line
from dirprune.layers import (
    CONVOLUTIONS,
    copy_for_evaluation,
    is_plain_attention,
    output_tensors,
    run_example,
)

N_NAMED = 3
_OF_TORCH = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
"""What multiplies by its parameters and is not counted, whatever autograd says of it."""

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

    Products by functions are those in the history of the outputs' gradients. Not found are products written
    as `(x * weight).sum()`, those behind `detach` or under `torch.no_grad`, and those with weights of a layer
    that is called too. Learnt queries that enter attention's own products are found: they multiply.

    Args:
        network: Any network; it is not touched.
        example_input: One batch, shape (batch, ...), of which the first example is used.
    Returns:
        In the order of the network's modules; of a network whose outputs have no gradients, only layers of
        torch.
    Raises:
        ConfigurationError: If the network fails on the example input with gradients, or if its outputs have
            none and nothing else is found.
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
        if isinstance(module, (*CONVOLUTIONS, nn.Linear, *_OF_TORCH)) or is_plain_attention(module)
    ]
    try:
        with torch.enable_grad():
            outputs = output_tensors(run_example(copied, example.clone()))
    finally:
        for hook in hooks:
            hook.remove()
    of_torch = {layer for layer in called if isinstance(layer, _OF_TORCH)}
    counted: set[Tensor] = {parameter for layer in called - of_torch for parameter in layer.parameters()}
    entering: set[Tensor] = {parameter for layer in of_torch for parameter in layer.parameters()}
    if not entering and all(output.grad_fn is None for output in outputs):
        raise ConfigurationError("no output has gradients, as behind argmax or under torch.no_grad")
    entering |= _find_entering(outputs, example, counted)
    found: dict[str, Uncounted] = {}
    for path, module in copied.named_modules():
        own = {name: p for name, p in module.named_parameters(recurse=False) if p in entering}
        for name, parameter in own.items():
            entering.discard(parameter)  # that of the next module with the same one
            key = f"{path} ({type(module).__name__})" if path else name
            n_before = found[key].n_parameters if key in found else 0
            is_functional = not isinstance(module, _OF_TORCH)
            found[key] = Uncounted(key, n_before + parameter.numel(), is_functional)
    return list(found.values())


def warn_of_uncounted(network: nn.Module, example_input: Tensor) -> str | None:
    """Return a warning of one line where a network has parameters whose MACs are not counted, else None.

    One that cannot be looked at, as it runs only without gradients or takes too much memory with them, is
    warned of too.
    """
    try:
        found = find_uncounted(network, example_input)
    except Exception as error:
        if not (isinstance(error, ConfigurationError) or is_out_of_memory(error)):
            raise
        is_said = isinstance(error, ConfigurationError) and error.__cause__ is None
        why = error if is_said else one_line(error.__cause__ or error, has_type=True)
        return f"WARNING: whether all MACs are counted could not be looked at: {why}"
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

    An operand of a product counts as weights if it depends on parameters and not on data. What a counted
    parameter was multiplied with is data: of integers and under `torch.no_grad` the data have no history.

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
            if multiplied & counted:
                weights[node] = None
            else:
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
