"""Compact networks: channels physically removed, and the check that this equals multiplying them by zero."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dirprune.dependency import function, ops
from dirprune.device import is_out_of_memory
from dirprune.errors import ArchitectureError, one_line
from dirprune.groups import Grouping
from dirprune.layers import copy_for_evaluation, is_in_parts, modes_restored, output_tensors, parameter_axis
from dirprune.switches import mask, switched

RELATIVE_TOLERANCE = 1e-6
DIFFERING = "masked and compact outputs differ"
"""How the reason begins where a compact network runs and computes something else than the masked one."""


def compact(
    network: nn.Module,
    grouping: Grouping,
    kept: Mapping[str, Sequence[int] | Tensor],
    example_input: Tensor,
) -> nn.Module:
    """Return a new network from which all channels but the kept ones are gone; `network` stays as it is.

    Mode, `requires_grad` and device are those of `network`; gradients are not copied. The kept channels stay
    in their order.

    Args:
        network: The network that `grouping` was found on, uncut, with any weights.
        grouping: Its channel groups.
        kept: Indices of the kept channels, at least one per group; groups that are not named stay whole.
        example_input: One batch, shape (batch, ...); its first example is run through the result as a last
            check.
    Raises:
        ArchitectureError: If the indices do not fit the groups, the groups do not fit the network, or the
            result cannot run.
    """
    small = copy.deepcopy(network)
    _cut_(small, grouping, grouping.checked_kept(kept))
    try:
        with modes_restored(small), torch.no_grad():
            small.eval()(example_input[:1].to(_device(small)))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ArchitectureError(
            f"expected a compact network that runs, got {one_line(error, has_type=True)}; "
            "try the groups of this very network"
        ) from error
    return small


def _device(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _cut_(network: nn.Module, grouping: Grouping, kept: Mapping[str, list[int]]) -> None:
    """Remove channels in place, all of one axis at once, so that no group shifts another's indices."""
    removed: dict[tuple[str, bool], set[int]] = {}
    lengths: dict[tuple[str, bool], int] = {}
    for name, indices in kept.items():
        gone = set(range(grouping[name].n_channels)) - set(indices)
        for slots, is_output in ((grouping[name].producers, True), (grouping[name].consumers, False)):
            for slot in slots:
                axis = (slot.module, is_output)
                lengths[axis] = len(slot.channel_of)
                positions = {position for position, channel in enumerate(slot.channel_of) if channel in gone}
                removed.setdefault(axis, set()).update(positions)
    modules = dict(network.named_modules())
    with torch.no_grad():
        for (path, is_output), positions in removed.items():
            if path in modules:
                _cut_module_(modules[path], path, is_output, sorted(positions), lengths[path, is_output])
            else:
                _cut_parameter_(network, path, positions, lengths[path, is_output])


def _cut_module_(module: nn.Module, path: str, is_output: bool, positions: list[int], length: int) -> None:
    kind = ops.module2type(module)
    if kind not in function.PrunerBox:
        raise ArchitectureError(f"expected a layer to cut at {path!r}, got {type(module).__name__}")
    pruner = type(function.PrunerBox[kind])()  # torch-pruning's own ones keep state between calls
    n_present = pruner.get_out_channels(module) if is_output else pruner.get_in_channels(module)
    if n_present != length:
        raise ArchitectureError(
            f"expected {length} channels at {path!r}, got {n_present}; try the groups of this very network"
        )
    if not positions:
        return
    is_trainable = {
        name: parameter.requires_grad for name, parameter in module.named_parameters(recurse=False)
    }
    if is_in_parts(module):
        _cut_parts_(cast(nn.Conv2d, module), positions)
    elif isinstance(module, nn.GroupNorm):
        _cut_norm_(module, positions)
    else:
        (pruner.prune_out_channels if is_output else pruner.prune_in_channels)(module, positions)
    for name, parameter in module.named_parameters(recurse=False):
        parameter.requires_grad_(is_trainable[name])


def _cut_parts_(convolution: nn.Conv2d, positions: Sequence[int]) -> None:
    """Remove whole parts of a convolution that works in parts, given the outputs that belong to them."""
    n_parts, gone = convolution.groups, set(positions)
    n_inputs, n_outputs = convolution.in_channels // n_parts, convolution.out_channels // n_parts
    parts = [part for part in range(n_parts) if part * n_outputs not in gone]
    outputs = [index for index in range(convolution.out_channels) if index not in gone]
    assert len(outputs) == len(parts) * n_outputs
    inputs = [part * n_inputs + index for part in parts for index in range(n_inputs)]
    convolution.groups = len(parts)
    convolution.in_channels, convolution.out_channels = len(inputs), len(outputs)
    rows = torch.tensor(inputs if convolution.transposed else outputs, device=convolution.weight.device)
    convolution.weight = nn.Parameter(convolution.weight.index_select(0, rows))
    if convolution.bias is not None:
        staying = torch.tensor(outputs, device=convolution.bias.device)
        convolution.bias = nn.Parameter(convolution.bias.index_select(0, staying))


def _cut_norm_(norm: nn.GroupNorm, positions: Sequence[int]) -> None:
    """Remove from a group norm all channels of what it normalises together, given those channels."""
    width = norm.num_channels // norm.num_groups
    gone = {position // width for position in positions}
    assert len(positions) == len(gone) * width
    staying = torch.tensor([c for c in range(norm.num_channels) if c // width not in gone])
    norm.num_groups -= len(gone)
    norm.num_channels = len(staying)
    for name, parameter in list(norm.named_parameters(recurse=False)):
        shorter = parameter.index_select(0, staying.to(parameter.device))
        setattr(norm, name, nn.Parameter(shorter))


def _cut_parameter_(network: nn.Module, path: str, positions: set[int], length: int) -> None:
    parent, _, name = path.rpartition(".")
    owner = network.get_submodule(parent) if parent in dict(network.named_modules()) else None
    parameter = getattr(owner, name, None)
    if not isinstance(parameter, nn.Parameter) or parameter.shape[parameter_axis(parameter.shape)] != length:
        raise ArchitectureError(
            f"expected {length} channels at {path!r}; try the groups of this very network"
        )
    staying = torch.tensor(
        [index for index in range(length) if index not in positions], device=parameter.device
    )
    shorter = parameter.index_select(parameter_axis(parameter.shape), staying)
    setattr(owner, name, nn.Parameter(shorter, requires_grad=parameter.requires_grad))


def randomised_copy(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a frozen float64 copy on the CPU, in evaluation mode, with random parameters and statistics.

    Args:
        network: It is not touched.
        generator: Source of all random numbers, on the CPU.
    """
    copied = copy_for_evaluation(network).double().requires_grad_(False)
    _randomise_(copied, generator)
    return copied


def check_masked_equals_compact(
    network: nn.Module, grouping: Grouping, example_input: Tensor, *, generator: torch.Generator
) -> str | None:
    """Check that removing channels gives the same outputs as multiplying them by zero at their consumers.

    Inputs are random, as the network's parameters should be, so that no zero, no equal values and no dead
    channel can hide an error. All groups are cut at once, for two random sets of kept channels: half of each
    group, then any number.

    Args:
        network: What `randomised_copy` gave; it is as before afterwards.
        grouping: The groups to cut together.
        example_input: One batch, shape (batch, ...); floating-point inputs only give their shape.
        generator: Source of all random numbers, on the CPU.
    Returns:
        None if the outputs agree within 1e-6 of the largest, otherwise the reason in one line.
    """
    if not grouping.groups:
        return None
    inputs = example_input.detach().cpu()
    if inputs.is_floating_point():
        inputs = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
    without_influence = set(grouping.names)
    for is_half in (True, False):
        kept = {name: _draw_kept(n, is_half, generator) for name, n in grouping.n_channels.items()}
        values = {name: part.double().requires_grad_() for name, part in mask(grouping, kept).items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                # The compact network first, as it is the sooner to fail.
                compacted = _run_compact(network, grouping, kept, inputs)
                with torch.set_grad_enabled(bool(without_influence)), switched(network, grouping, values):
                    masked = output_tensors(network(inputs))
            except TimeoutError:  # of the caller's limit
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return (
                    "the compact network cannot run, as where numbers of channels stand in its code or "
                    f"a layer has further weights for each channel ({one_line(error, has_type=True)})"
                )
            reason = _compare(masked, compacted)
            if reason is not None:
                return reason
            if without_influence:
                with torch.enable_grad():
                    without_influence -= _find_influential(masked, values, generator)
    if without_influence:
        names = ", ".join(sorted(without_influence))
        return f"the output does not depend on {names}, so cutting cannot be checked"
    return None


@torch.no_grad()
def _run_compact(
    network: nn.Module, grouping: Grouping, kept: Mapping[str, list[int]], inputs: Tensor
) -> list[Tensor]:
    """Return the outputs of the compact network, which shares the weights that nothing is cut from."""
    small = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
    _cut_(small, grouping, kept)
    return output_tensors(small(inputs))


def _draw_kept(n_channels: int, is_half: bool, generator: torch.Generator) -> list[int]:
    n_kept = max(1, n_channels // 2)
    if not is_half and n_channels > 1:
        n_kept = int(torch.randint(1, n_channels, (1,), generator=generator))
    return sorted(torch.randperm(n_channels, generator=generator)[:n_kept].tolist())


def _randomise_(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all parameters and batch-norm statistics anew, of a size that keeps the layers' outputs near 1."""

    def uniform_(tensor: Tensor, low: float, high: float) -> None:
        tensor.uniform_(generator=generator).mul_(high - low).add_(low)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() > 1 and name.endswith("weight"):
                fan_in = max(1, parameter.numel() // parameter.shape[0])
                bound = math.sqrt(6 / fan_in)
                uniform_(parameter, -bound, bound)
            elif name.endswith("bias"):
                uniform_(parameter, -0.5, 0.5)
            else:
                uniform_(parameter, 0.5, 1.5)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                uniform_(buffer, -0.5, 0.5)
            elif name.endswith("running_var"):
                uniform_(buffer, 0.5, 1.5)


def _compare(masked: Sequence[Tensor], compacted: Sequence[Tensor]) -> str | None:
    shapes = [[list(tensor.shape) for tensor in tensors] for tensors in (masked, compacted)]
    if not masked or shapes[0] != shapes[1]:
        return f"cutting changes the output's shape from {shapes[0]} to {shapes[1]}"
    for left, right in zip(masked, compacted, strict=True):
        if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
            return "the output is not finite, so cutting cannot be checked"
        difference = (left.detach().double() - right.double()).abs().max()
        allowed = RELATIVE_TOLERANCE * left.detach().double().abs().max()
        if difference > allowed:
            return (
                f"{DIFFERING} by {difference:.3g}, allowed are {allowed:.3g}, so that "
                "to cut it would change what the network computes"
            )
    return None


def _find_influential(
    outputs: Sequence[Tensor], values: Mapping[str, Tensor], generator: torch.Generator
) -> set[str]:
    """Return the groups whose values have a gradient: without one, equal outputs say nothing."""
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        if output.requires_grad:
            total = (
                total + (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum()
            )
    if not total.requires_grad:
        return set()
    gradients = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    return {
        name
        for name, gradient in zip(values, gradients, strict=True)
        if gradient is not None and bool((gradient != 0).any())
    }
