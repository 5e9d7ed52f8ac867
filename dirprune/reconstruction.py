"""Least-squares reconstruction: refit the layers behind the cuts to what they gave in the dense network.

A layer that lost inputs can make up for them with those that stayed, as far as channels are correlated. For
every convolution and linear layer behind a cut, in forward order, the new weights are the ridge regression of
the dense network's outputs on the inputs that the layer now has, over positions drawn from calibration images
[He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 5; Luo et al. 2017,
"ThiNet", eq. 7]. Nothing is trained: it takes a pass of the dense network and one of the smaller one, in
which each layer is refitted when it is reached. Where all images at once would take too much memory, it
takes for each layer the part of a pass that leads to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.importance import ScoringContext
from dirprune.layers import modes_restored

RIDGE = 1e-3
N_POSITIONS = 16
N_IMAGES = 2_000
BATCH = 250
TINY = 1e-12
N_ALIVE = 4
"""Outputs of layers that are in memory at the same time: of a branch, of its shortcut, and in between."""

Layer = nn.Conv2d | nn.Linear


@torch.no_grad()
def reconstruct_(
    network: nn.Module,
    context: ScoringContext,
    kept: Mapping[str, Sequence[int]],
    *,
    ridge: float = RIDGE,
    n_positions: int = N_POSITIONS,
    n_images: int = N_IMAGES,
    known: dict[str, Tensor] | None = None,
) -> list[str]:
    """Refit the layers behind the cuts of a compact network to the outputs of the dense one, in place.

    Batch-norm statistics stay those of the dense network, which the refitted layers give again. Layers that
    are called more than once in a pass, grouped and transposed convolutions, and such that do not pad with
    zeros are left as they are.

    Args:
        network: The compact network, on the context's device; left in the modes in which it came.
        context: The dense network, its groups, the calibration images, the memory to keep within.
        kept: Kept channel indices of every group.
        ridge: Pull towards the weights as they are, in units of the inputs' mean square; > 0.
        n_positions: Positions drawn from each image for a convolution; >= 1.
        n_images: Calibration images at most; >= 1.
        known: What layers of the dense network give, by module path: used, and filled where there is memory
            for all of it. Calls that share it must have the same context and numbers.
    Returns:
        Module paths of the layers that were refitted, in forward order.
    Raises:
        ConfigurationError: If a number is out of its range, or there is no calibration image.
    """
    n_images = min(n_images, len(context.calibration))
    if not ridge > 0 or n_positions < 1 or n_images < 1:
        raise ConfigurationError(
            "reconstruction needs a ridge > 0, at least 1 position and at least 1 image, "
            f"got {ridge:g}, {n_positions} and {n_images}"
        )
    rows = _Rows(context, n_images, n_positions)
    paths, largest = _list_layers(context, list_consumers(context.grouping, kept))
    is_at_once = N_ALIVE * 4 * largest * n_images <= context.memory_mb * 2**20
    left = _list_outputs_left(context.grouping, kept)
    n_done = 0

    def refit_(path: str, inputs: Iterator[Tensor]) -> None:
        nonlocal n_done
        wanted = targets.pop(path)
        layer = cast(Layer, network.get_submodule(path))
        _refit_(layer, inputs, wanted[:, left[path]] if path in left else wanted, ridge)
        n_done += 1
        if context.progress is not None:
            context.progress("reconstruction", n_done, len(paths))

    with modes_restored(network), modes_restored(context.network):
        network.eval()
        context.network.eval()
        parts = list(rows.split_by_memory(paths))
        if known is None or len(parts) > 1:
            known = {}
        for together in parts:
            unknown = [path for path in together if path not in known]
            targets = rows.outputs(context.network, unknown) if unknown else {}
            if len(parts) == 1:
                known |= targets
            targets |= {path: known[path] for path in together if path not in targets}
            if is_at_once:
                rows.visit(network, together, refit_)
            else:
                for path in together:
                    refit_(path, rows.inputs(network, path))
    return paths


def list_consumers(grouping: Grouping, kept: Mapping[str, Sequence[int]]) -> set[str]:
    """Return the layers that lose inputs, by module path.

    Args:
        grouping: All groups.
        kept: Kept channel indices of every group.
    """
    return {
        slot.module
        for group in grouping.groups
        if len(kept[group.name]) < group.n_channels
        for slot in group.consumers
    }


def _list_layers(context: ScoringContext, consumers: Set[str]) -> tuple[list[str], int]:
    """Return the layers that can be refitted, in forward order from the first of those that lose inputs.

    Also the numbers that the largest of all inputs to them holds, for one image.
    """
    calls: list[str] = []
    sizes = [0]

    def take(path: str, entering: Tensor) -> None:
        calls.append(path)
        sizes.append(entering.numel())

    layers = [(path, layer) for path, layer in context.network.named_modules() if _can_refit(layer)]
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, path=path: take(path, inputs[0]))
        for path, layer in layers
    ]
    try:
        context.network(context.load(slice(1))[0])
    finally:
        for handle in handles:
            handle.remove()
    first = next((place for place, path in enumerate(calls) if path in consumers), len(calls))
    return [path for path in calls[first:] if calls.count(path) == 1], max(sizes)


def _can_refit(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _list_outputs_left(grouping: Grouping, kept: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return for every layer whose outputs are cut which of them are left."""
    left: dict[str, list[int]] = {}
    for group in grouping.groups:
        channels = set(kept[group.name])
        for slot in group.producers:
            before = left.get(slot.module, range(len(slot.channel_of)))
            left[slot.module] = [
                index for index in before if slot.channel_of[index] < 0 or slot.channel_of[index] in channels
            ]
    return left


class _ReachedError(Exception):
    """The layer that was asked for has been reached: the rest of the pass is not needed."""


@functools.lru_cache(maxsize=256)
def _draw(n_images: int, n_places: int, n_positions: int, seed: int) -> Tensor:
    """Return drawn positions, shape (n_images, n_drawn), in [0, n_places); kept, as layers share them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_images, n_places, generator=generator).topk(min(n_positions, n_places)).indices


@dataclass(frozen=True)
class _Rows:
    """What layers see and give at the same positions of the same images, a row for each."""

    context: ScoringContext
    n_images: int
    n_positions: int

    def split_by_memory(self, paths: Sequence[str]) -> Iterator[list[str]]:
        """Yield layers together whose outputs fit into the memory; at least one at a time."""
        together: list[str] = []
        used = 0
        for path in paths:
            layer = cast(Layer, self.context.network.get_submodule(path))
            per_image = 4 * layer.weight.shape[0] * (1 if isinstance(layer, nn.Linear) else self.n_positions)
            if together and used + self.n_images * per_image > self.context.memory_mb * 2**20:
                yield together
                together, used = [], 0
            together.append(path)
            used += self.n_images * per_image
        if together:
            yield together

    def outputs(self, network: nn.Module, paths: Sequence[str]) -> dict[str, Tensor]:
        """Return what layers give, each (n_rows, n_outputs), on the CPU; one pass over the images."""
        found: dict[str, list[Tensor]] = {path: [] for path in paths}
        start = 0

        def take(path: str, layer: nn.Module, output: Tensor) -> None:
            is_linear = isinstance(layer, nn.Linear)
            rows = output.flatten(0, -2) if is_linear else self._take_places(output, start)
            found[path].append(rows.cpu())
            if path == paths[-1]:
                raise _ReachedError

        handles = [
            network.get_submodule(path).register_forward_hook(
                lambda layer, _, output, path=path: take(path, layer, output)
            )
            for path in paths
        ]
        try:
            for start in self._starts():
                self._run(network, start)
        finally:
            for handle in handles:
                handle.remove()
        return {path: torch.cat(parts) for path, parts in found.items()}

    def inputs(self, network: nn.Module, path: str) -> Iterator[Tensor]:
        """Yield what a layer multiplies its weights with, shape (n_rows, n_features), batch by batch."""
        layer = cast(Layer, network.get_submodule(path))
        seen: list[Tensor] = []

        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])
            raise _ReachedError

        for start in self._starts():
            handle = layer.register_forward_pre_hook(take)
            try:
                self._run(network, start)
            finally:
                handle.remove()
            yield self._cut(layer, seen.pop(), start)

    def visit(
        self, network: nn.Module, paths: Sequence[str], call: Callable[[str, Iterator[Tensor]], None]
    ) -> None:
        """Call with each layer and its `inputs` when it is reached in a pass of all images."""

        def take(path: str, layer: Layer, entering: Tensor) -> None:
            parts = ((entering[start : start + BATCH], start) for start in self._starts())
            call(path, (self._cut(layer, part, start) for part, start in parts))
            if path == paths[-1]:
                raise _ReachedError

        layers = [(path, cast(Layer, network.get_submodule(path))) for path in paths]
        handles = [
            layer.register_forward_pre_hook(lambda at, inputs, path=path: take(path, at, inputs[0]))
            for path, layer in layers
        ]
        try:
            network(self.context.load(slice(0, self.n_images))[0])
        except _ReachedError:
            return
        finally:
            for handle in handles:
                handle.remove()

    def _cut(self, layer: Layer, entering: Tensor, start: int) -> Tensor:
        """Return what a layer multiplies its weights with of some images, shape (n_rows, n_features)."""
        if isinstance(layer, nn.Linear):
            return entering.flatten(0, -2)
        return self._cut_patches(layer, entering, start)

    def _starts(self) -> range:
        return range(0, self.n_images, BATCH)

    def _run(self, network: nn.Module, start: int) -> None:
        try:
            network(self.context.load(slice(start, min(start + BATCH, self.n_images)))[0])
        except _ReachedError:
            return

    def _take_places(self, output: Tensor, start: int) -> Tensor:
        """Return what a convolution gives at the positions, shape (n_rows, n_outputs)."""
        columns = output.flatten(2)
        drawn = _draw(len(columns), columns.shape[2], self.n_positions, start).to(columns.device)
        index = drawn[:, None, :].expand(-1, columns.shape[1], -1)
        return columns.gather(2, index).transpose(1, 2).flatten(0, 1)

    def _cut_patches(self, layer: nn.Conv2d, entering: Tensor, start: int) -> Tensor:
        """Return what a convolution's weights meet at the positions, shape (n_rows, n_features)."""
        (high, wide), (up, left) = layer.kernel_size, cast(tuple[int, int], layer.padding)
        padded = functional.pad(entering, (left, left, up, up))
        n_images, n_channels, height, width = padded.shape
        rows = torch.arange(high) * layer.dilation[0]
        columns = torch.arange(wide) * layer.dilation[1]
        n_high = (height - int(rows[-1]) - 1) // layer.stride[0] + 1
        n_wide = (width - int(columns[-1]) - 1) // layer.stride[1] + 1
        drawn = _draw(n_images, n_high * n_wide, self.n_positions, start)
        corners = (drawn // n_wide) * layer.stride[0] * width + (drawn % n_wide) * layer.stride[1]
        inside = (rows[:, None] * width + columns).flatten()
        index = (corners[:, :, None] + inside).flatten(1).to(padded.device)
        found = padded.flatten(2).gather(2, index[:, None, :].expand(-1, n_channels, -1))
        return found.unflatten(2, (-1, high * wide)).movedim(2, 1).flatten(0, 1).flatten(1)


def _refit_(layer: Layer, inputs: Iterator[Tensor], wanted: Tensor, ridge: float) -> None:
    """Set the weights of a layer by ridge regression of what is missing of the wanted outputs.

    Args:
        inputs: Batches of shape (n_rows, n_features).
        wanted: Outputs of all batches, shape (n_rows, n_outputs).
        ridge: As in `reconstruct_`; the bias is not pulled.
    """
    weights = layer.weight.flatten(1).double()
    if layer.bias is not None:
        weights = torch.cat([weights, layer.bias[:, None].double()], dim=1)
    n_features = weights.shape[1]
    gram = weights.new_zeros(n_features, n_features)
    cross = weights.new_zeros(n_features, len(weights))
    n_seen = 0
    for rows in inputs:
        rows = rows.double()
        if layer.bias is not None:
            rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
        missing = wanted[n_seen : n_seen + len(rows)].to(rows) - rows @ weights.T
        gram.addmm_(rows.T, rows)
        cross.addmm_(rows.T, missing)
        n_seen += len(rows)
    n_weights = layer.weight[0].numel()
    pull = gram.diagonal().clone()
    pull[:n_weights] = ridge * pull[:n_weights].mean() + TINY  # inputs may all be zero
    pull[n_weights:] = 0
    gram.diagonal().add_(pull)
    fitted = weights + torch.cholesky_solve(cross, torch.linalg.cholesky(gram)).T
    layer.weight.copy_(fitted[:, :n_weights].reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(fitted[:, n_weights])
