"""Look at a network's layers without touching the network: copies, its modes, the order of its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dirprune.computed_weights import check_plain
from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, one_line

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def is_refused_alone(error: Exception) -> bool:
    """Return whether a norm refused a channel's single value, which has no deviation to train with."""
    return isinstance(error, ValueError) and "more than 1 value per channel" in str(error)


@dataclass(frozen=True)
class LayerCall:
    """One convolution or linear layer as the network calls it.

    Attributes:
        path: Module path of the layer.
        n_positions: How often its weights are applied, all calls and the whole batch together: output
            positions of a convolution, input positions of a transposed one, rows of a linear layer.
    """

    path: str
    n_positions: int


def copy_for_evaluation(network: nn.Module) -> nn.Module:
    """Return a deep copy on the CPU in evaluation mode, so that looking at it cannot change `network`.

    Raises:
        ConfigurationError: If the network cannot be copied, or masks or norms compute its weights.
    """
    check_plain(network)
    try:
        return copy.deepcopy(network).cpu().eval()
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"expected a network that copy.deepcopy can copy, got {one_line(error, has_type=True)}; "
            "try to build it without tensors that carry gradients"
        ) from error


def run_example(network: nn.Module, example_input: Tensor) -> Any:
    """Return the network's output.

    Args:
        network: Network to run as it is, a copy from `copy_for_evaluation`.
        example_input: One batch on the network's device, shape (batch, ...).
    Raises:
        ConfigurationError: If the network fails on the example input, other than for want of memory.
    """
    try:
        return network(example_input)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"expected a network that accepts inputs of shape {tuple(example_input.shape)}, "
            f"got {one_line(error, has_type=True)}; try an example input of the network's own data"
        ) from error


def record_layers(network: nn.Module, example_input: Tensor) -> list[LayerCall]:
    """Run the network once and return its convolutions and linear layers in the order of their first calls.

    Args:
        network: Network to run as it is, a copy from `copy_for_evaluation`.
        example_input: One batch on the network's device, shape (batch, ...).
    Raises:
        ConfigurationError: If the network fails on the example input.
    """
    n_positions: dict[str, int] = {}

    def record(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        n_positions[path] = n_positions.get(path, 0) + _count_positions(
            layer, inputs[0] if inputs else None, output
        )

    hooks = [
        layer.register_forward_hook(lambda m, i, o, path=path: record(path, m, i, o))
        for path, layer in network.named_modules()
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear))
    ]
    try:
        with torch.no_grad():
            run_example(network, example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return [LayerCall(path, count) for path, count in n_positions.items()]


def is_plain_attention(module: nn.Module) -> bool:
    """Return whether a module is attention that computes as torch's does, which calls none of its layers."""
    return isinstance(module, nn.MultiheadAttention) and (
        type(module).forward is nn.MultiheadAttention.forward
    )


def _count_positions(layer: nn.Module, layer_input: Tensor | None, output: Tensor) -> int:
    if isinstance(layer, nn.Linear):
        return output.numel() // layer.out_features
    if not layer.transposed:
        return output.numel() // cast(int, layer.out_channels)
    if layer_input is None:
        raise TypeError("a transposed convolution called with keywords only")
    return layer_input.numel() // cast(int, layer.in_channels)


def is_in_parts(layer: object) -> bool:
    """Return whether a convolution works in parts, each with its own inputs and outputs, of several channels.

    One whose parts have one input and one output each (depthwise) acts on each channel alone.
    """
    if not isinstance(layer, CONVOLUTIONS) or layer.groups == 1:
        return False
    return not layer.groups == layer.in_channels == layer.out_channels


def is_norm_in_parts(layer: object) -> bool:
    """Return whether a group norm normalises some, not all, of its channels together."""
    return isinstance(layer, nn.GroupNorm) and 1 < layer.num_groups < layer.num_channels


def is_norm_over_channels(layer: object) -> bool:
    """Return whether a norm takes all of its channels together: a layer norm, a group norm of one part."""
    is_one_part = isinstance(layer, nn.GroupNorm) and layer.num_groups == 1 < layer.num_channels
    return is_one_part or isinstance(layer, nn.LayerNorm)


def find_activation(norm: _BatchNorm) -> nn.Module:
    """Return what a batch norm does to values that it has normalised: nothing, or what timm's do.

    timm's `BatchNormAct2d` is a batch norm that drops and activates at its end; what is returned shares those
    modules.

    Raises:
        ConfigurationError: If its class has a `forward` of its own that is not known.
    """
    kind = next(kind for kind in type(norm).__mro__ if "forward" in vars(kind))
    if kind in (_BatchNorm, nn.SyncBatchNorm):
        return nn.Identity()
    if kind.__module__.partition(".")[0] == "timm":
        parts = [getattr(norm, name, None) for name in ("drop", "act")]
        return nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
    raise ConfigurationError(
        f"expected batch norms of torch or timm where their statistics are taken anew, got "
        f"{kind.__module__}.{kind.__qualname__} with a forward of its own; try a module behind one of torch"
    )


@contextmanager
def modes_restored(network: nn.Module) -> Iterator[None]:
    """Give every module of `network` the training or evaluation mode that it came with, at the end."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextmanager
def laid_out(network: nn.Module, is_channels_last: bool) -> Iterator[None]:
    """Keep the weights of convolutions with channels innermost for a while, if wanted."""
    if not is_channels_last:
        yield
        return
    network.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)


def parameter_axis(shape: torch.Size) -> int:
    """Return the channel axis of a parameter outside any known layer: the last one longer than 1."""
    return max((axis for axis, size in enumerate(shape) if size > 1), default=0)


def output_tensors(output: Any) -> list[Tensor]:
    """Return all tensors of a network's output in a fixed order, however they are nested."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in output_tensors(part)]
    return []
