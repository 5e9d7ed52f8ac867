"""Find a network's channel groups, and which groups cannot be removed, and why.

Torch-pruning's dependency graph finds what hangs together; nothing of it leaves this module. Each group is
tried out: one that fails `check_masked_equals_compact` is refused with the reason rather than cut wrongly.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dirprune.deadline import deadline, read_processor_time
from dirprune.dependency import DependencyGraph, ops
from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, suggest
from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.layers import copy_for_evaluation, is_in_parts, is_norm_in_parts, record_layers
from dirprune.refusals import LostChannels, explain_norm, find_cause, find_reasons, pads_channels
from dirprune.surgery import check_masked_equals_compact, randomised_copy

MAX_TRACING_S = 30.0
MAX_LAYER_S = 10.0
MIN_LAYER_S = 0.5
"""Time for all layers and before them for the graph, for one, and for each that comes when the time for all
is used up. Reshapes of windows [Swin] let the tracer's lists of indices grow without end; ordinary layers
take milliseconds."""
MAX_CHECKS, MAX_CHECKS_PER_GROUP = 100, 4
"""Trials of sets of groups, the larger: no time, as a network must have the same groups on every machine."""
MAX_CHECK_S, MAX_CHECK_PASSES = 30.0, 100
"""Processor time for one trial, beside what so many passes of the whole network take here: a trial is a few,
most of them of a smaller network, so that on any machine only one that never ends is given up."""
TRACED, TRIED_OUT = "layers traced", "channel groups tried out"


def find_groups(
    network: nn.Module,
    example_input: Tensor,
    *,
    exclude: Iterable[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Grouping:
    """Find the channel groups of a network and refuse those that cannot be cut rightly.

    The layers at the network's output are neither groups nor refused. The network itself is not touched, and
    its weights do not matter: the check runs on random ones.

    Args:
        network: Any network of convolutions and linear layers.
        example_input: One batch as the network takes it, shape (batch, ...); two examples are enough.
        exclude: Module paths of layers whose channels must all stay; their groups are listed as refused.
        progress: Told before each layer how many are traced so far, then before each trial of groups how many
            are kept or refused.
    Raises:
        ConfigurationError: If the network fails on the example input or `exclude` names an unknown layer.
    """
    batch = example_input[:2].detach().cpu()
    tell = progress or _tell_nobody
    candidates, refused, padded = _find_candidates(network, batch, partial(tell, TRACED))
    excluded = set(exclude)
    known = {slot.module for group in candidates for slot in group.producers} | set(refused)
    for path in sorted(excluded - known):
        raise ConfigurationError(f"no layer {path!r} to exclude{suggest(path, known)}")
    for group in candidates:
        if excluded & {slot.module for slot in group.producers}:
            refused[group.name] = "excluded by request"
    accepted = [group for group in candidates if group.name not in refused]
    sieve = _Sieve(network, batch, refused, padded, partial(tell, TRIED_OUT))
    return Grouping(tuple(sieve.sift(accepted)), refused)


def _tell_nobody(what: str, n_done: int, n_total: int) -> None:
    pass


class _Sieve:
    """Try groups out and keep those that can be cut, each alone and all together.

    Those of a set that fails are added half by half to what is kept already, so that few bad groups among
    many take few trials. What is left after `MAX_CHECKS` of them, or four for each group, is refused.

    Args:
        network: It is not touched.
        batch: As the network takes it.
        refused: Takes the reason against each group that is not kept.
        padded: Names of groups with shortcuts that pad channels.
        tell: Told before each trial, and at the end, how many groups are kept or refused, and of how many.
    """

    def __init__(
        self,
        network: nn.Module,
        batch: Tensor,
        refused: dict[str, str],
        padded: Set[str],
        tell: Callable[[int, int], None],
    ) -> None:
        self.batch, self.refused, self.padded, self.tell = batch, refused, padded, tell
        self.random = randomised_copy(network, torch.Generator().manual_seed(0))
        self.n_checks = self.n_decided = self.n_groups = self.most_checks = 0
        self.most_s = MAX_CHECK_S + MAX_CHECK_PASSES * self._time_pass()

    def sift(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Return those of all groups that can be cut."""
        self.n_groups = len(groups)
        self.most_checks = max(MAX_CHECKS, MAX_CHECKS_PER_GROUP * len(groups))
        kept = self.keep(groups)
        self.tell(self.n_groups, self.n_groups)
        return kept

    def keep(self, groups: Sequence[ChannelGroup], kept: Sequence[ChannelGroup] = ()) -> list[ChannelGroup]:
        """Return the groups that can be cut together, behind those that are kept already."""
        if self.n_checks >= self.most_checks:
            reason = f"it was not tried out: {self.n_checks} trials of groups before it are all that is done"
            self.refused.update((group.name, reason) for group in groups)
            self.n_decided += len(groups)
            return [*kept]
        found = self._check([*kept, *groups])
        if found is None:
            self.n_decided += len(groups)
            return [*kept, *groups]
        if len(groups) == 1:
            alone = self._check(groups) if kept else found
            cause = "" if alone is None else find_cause(alone, groups[0].name in self.padded)
            self.refused[groups[0].name] = f"{alone or f'together with other groups, {found}'}{cause}"
            self.n_decided += 1
            return [*kept]
        middle = len(groups) // 2
        return self.keep(groups[middle:], self.keep(groups[:middle], kept))

    def _check(self, groups: Sequence[ChannelGroup]) -> str | None:
        self.tell(self.n_decided, self.n_groups)
        self.n_checks += 1
        generator = torch.Generator().manual_seed(1)
        try:
            with deadline(self.most_s):
                return check_masked_equals_compact(
                    self.random, Grouping(tuple(groups)), self.batch, generator=generator
                )
        except TimeoutError:
            return f"the network without some of its channels takes more than {self.most_s:.3g} s"

    def _time_pass(self) -> float:
        """Return the processor time of one pass of the whole network, in seconds."""
        batch = self.batch.double() if self.batch.is_floating_point() else self.batch
        used_s = read_processor_time()
        with suppress(Exception), torch.no_grad():  # what fails here fails in the first trial, which says why
            self.random(batch)
        return used_s()


def _find_candidates(
    network: nn.Module, batch: Tensor, tell: Callable[[int, int], None]
) -> tuple[list[ChannelGroup], dict[str, str], set[str]]:
    """Return what the tracer proposes, what cannot be cut, with reasons, and the groups that are padded."""
    copy = copy_for_evaluation(network).requires_grad_(True)
    order = [call.path for call in record_layers(copy, batch)]
    tell(0, len(order))
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # the check decides, not the tracer's doubts
        found = _trace_layers(copy, batch, order, tell, LostChannels(network, batch))
    tell(len(order), len(order))
    return found


def _trace_layers(
    network: nn.Module,
    batch: Tensor,
    order: Sequence[str],
    tell: Callable[[int, int], None],
    lost: LostChannels,
) -> tuple[list[ChannelGroup], dict[str, str], set[str]]:
    """Return what `_find_candidates` does.

    Args:
        network: A copy, which is done with afterwards; all of its parameters take gradients.
        batch: As the network takes it.
        order: Paths of its layers as they are called.
        tell: Told before each layer how many are traced, and of how many.
        lost: Says what the tracer's errors mean.
    """
    try:
        with deadline(MAX_TRACING_S):
            graph = DependencyGraph().build_dependency(
                network,
                batch,
                forward_fn=lambda traced, inputs: traced(inputs),
                unwrapped_parameters=[],
                ignored_layers=[],
                ignored_params=[],
                verbose=False,
            )
    except TimeoutError:
        reason = f"the network takes too long to trace: more than {MAX_TRACING_S:g} s"
        return [], dict.fromkeys(order, reason), set()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return [], dict.fromkeys(order, f"the network cannot be traced: {lost.explain(error)}"), set()
    tracing = _Tracing(graph, network, order)
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    padded: set[str] = set()
    done: set[str] = set()
    clock = _Clock()
    for n_before, path in enumerate(order):
        if path in done:
            continue
        tell(n_before, len(order))
        done.add(path)
        try:
            found = clock.give(tracing.group_of, path)
        except TimeoutError as error:
            refused[path] = f"its dependencies take too long to trace: {error}"
            continue
        except Exception as error:
            if is_out_of_memory(error):
                raise
            refused[path] = f"its dependencies cannot be traced: {lost.explain(error)}"
            continue
        done.update(found.layers)
        if found.reason is not None:
            refused[path] = found.reason
        elif found.group is not None:
            groups.append(found.group)
            padded |= {found.group.name} if found.is_padded else set()
    for node in graph.module2node.values():  # they hold each other, and so the copy, in circles
        vars(node).clear()
    return groups, refused, padded


class _Clock:
    """Give each layer some time, and less when layers before have used up what is there for all."""

    def __init__(self) -> None:
        self.left_s = MAX_TRACING_S

    def give(self, trace: Callable[[str], _Found], path: str) -> _Found:
        """Return what tracing a layer gives.

        Raises:
            TimeoutError: If it takes longer than it may.
        """
        allowed = max(MIN_LAYER_S, min(MAX_LAYER_S, self.left_s))
        used_s = read_processor_time()
        try:
            with deadline(allowed):
                return trace(path)
        except TimeoutError:
            raise TimeoutError(f"more than {allowed:g} s") from None
        finally:
            self.left_s -= used_s()


@dataclass(frozen=True)
class _Found:
    """What the graph says of one layer: a group, a reason against it, or, for output layers, neither."""

    layers: frozenset[str]
    group: ChannelGroup | None = None
    reason: str | None = None
    is_padded: bool = False


@dataclass
class _Traced:
    """What hangs together with the output channels of a layer."""

    n_channels: int
    producers: list[Slot] = field(default_factory=list)
    consumers: list[Slot] = field(default_factory=list)
    is_output: bool = False
    is_padded: bool = False
    reasons: list[str] = field(default_factory=list)

    def add(self, other: _Traced, part_of: Mapping[int, int], but: Sequence[Slot]) -> None:
        """Take over the slots of another one but for some, with its channels under other numbers."""
        for slots, whose in ((self.producers, other.producers), (self.consumers, other.consumers)):
            slots += [
                Slot(slot.module, tuple(part_of.get(channel, -1) for channel in slot.channel_of))
                for slot in whose
                if slot not in but
            ]


class _Tracing:
    """Translates one dependency graph into slots."""

    def __init__(self, graph: DependencyGraph, network: nn.Module, order: Sequence[str]) -> None:
        self.graph = graph
        self.paths = {module: path for path, module in network.named_modules()}
        self.modules = dict(network.named_modules())
        self.place = {path: place for place, path in enumerate(order)}
        owners = Counter(p for module in network.modules() for p in module.parameters(recurse=False))
        self.shared = {parameter for parameter, n_owners in owners.items() if n_owners > 1}

    def group_of(self, path: str) -> _Found:
        layer = self.modules[path]
        if layer not in self.graph.module2node:
            return _Found(
                frozenset(), reason="the output does not depend on it in a way that the tracer sees"
            )
        traced = self._trace(path)
        in_parts = [slot for slot in traced.consumers if is_in_parts(self.modules.get(slot.module))]
        if in_parts:
            traced = self._join(traced, in_parts)
        traced = self._merge_normalised(traced)
        n_channels = traced.n_channels
        producers, consumers, reasons = traced.producers, traced.consumers, traced.reasons
        layers = frozenset(slot.module for slot in producers)
        if not consumers and traced.is_output:
            return _Found(layers)
        if traced.is_output:
            reasons.append("its channels are also an output of the network")
        if n_channels < 2:
            reasons.append("it has a single channel")
        if reasons:
            return _Found(layers, reason=reasons[0])
        producers.sort(key=lambda slot: self.place.get(slot.module, len(self.place)))
        consumers.sort(key=lambda slot: self.place.get(slot.module, len(self.place)))
        group = ChannelGroup(path, n_channels, tuple(producers), tuple(consumers))
        return _Found(layers, group, is_padded=traced.is_padded)

    def _trace(self, path: str) -> _Traced:
        """Return what hangs together with the output channels of a layer."""
        layer = self.modules[path]
        pruner = self.graph.get_pruner_of_module(layer)
        n_channels = pruner.get_out_channels(layer)
        traced = _Traced(n_channels)
        items = list(self.graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(n_channels))))
        is_split = any(item.dep.target.type in _SPLITTING for item in items)
        for item in items:
            node = item.dep.target
            traced.is_padded |= pads_channels(node.grad_fn, layer)
            traced.is_output |= node.type == ops.OPTYPE.OUTPUT
            if node.type in _WITHOUT_WEIGHTS:
                continue
            slot, is_input = self._slot(item)
            traced.is_output |= not is_input and not node.outputs
            if slot is not None:
                (traced.consumers if is_input else traced.producers).append(slot)
                traced.reasons += find_reasons(slot, node.module, n_channels, is_split)
                if not is_input and slot.module != path and is_in_parts(node.module):
                    traced.reasons.append(f"{slot.module!r}, a convolution in parts, is added to it")
                if isinstance(node.module, nn.Module) and self.shared.intersection(node.module.parameters()):
                    traced.reasons.append(f"{slot.module!r} shares its weights with another layer")
        return traced

    def _join(self, entering: _Traced, in_parts: Sequence[Slot]) -> _Traced:
        """Couple what enters convolutions in parts with what leaves them: a part is cut as one channel.

        Args:
            entering: What hangs together in front of them.
            in_parts: Their input axes.
        """
        modules = [cast(nn.Conv2d, self.modules[slot.module]) for slot in in_parts]
        n_parts = modules[0].groups
        joined = _Traced(n_parts, is_output=entering.is_output, reasons=list(entering.reasons))
        joined.is_padded = entering.is_padded
        parts_of: dict[int, set[int]] = {}
        for slot, module in zip(in_parts, modules, strict=True):
            for position, channel in enumerate(slot.channel_of):
                parts_of.setdefault(channel, set()).add(position * module.groups // len(slot.channel_of))
        if any(len(parts) > 1 for parts in parts_of.values()) or any(m.groups != n_parts for m in modules):
            joined.reasons.append(f"its channels enter several parts of {in_parts[0].module!r}")
        joined.add(entering, {channel: min(parts) for channel, parts in parts_of.items()}, in_parts)
        for slot, module in zip(in_parts, modules, strict=True):
            leaving = self._trace(slot.module)
            if any(is_in_parts(self.modules.get(other.module)) for other in leaving.consumers):
                joined.reasons.append(f"{slot.module!r} is a convolution in parts before another one")
            width = leaving.n_channels // module.groups
            joined.add(leaving, {channel: channel // width for channel in range(leaving.n_channels)}, ())
            joined.is_output |= leaving.is_output
            joined.is_padded |= leaving.is_padded
            joined.reasons += leaving.reasons
        return joined

    def _merge_normalised(self, traced: _Traced) -> _Traced:
        """Couple channels that a group norm normalises together: all of them are cut as one channel."""
        norms = [slot for slot in traced.producers if is_norm_in_parts(self.modules.get(slot.module))]
        if not norms or traced.reasons:
            return traced
        parts = [[channel] for channel in range(traced.n_channels)]  # of each channel, shared by its part
        for slot in norms:
            width = len(slot.channel_of) // cast(nn.GroupNorm, self.modules[slot.module]).num_groups
            for start in range(0, len(slot.channel_of), width):
                together = slot.channel_of[start : start + width]
                if min(together) < 0:
                    if max(together) >= 0:
                        traced.reasons.append(f"{slot.module!r} normalises some of its channels with others")
                        return traced
                    continue
                part = sorted({member for channel in together for member in parts[channel]})
                for channel in part:
                    parts[channel] = part
        firsts = sorted({part[0] for part in parts})
        merged = _Traced(
            len(firsts), is_output=traced.is_output, is_padded=traced.is_padded, reasons=traced.reasons
        )
        place = {first: number for number, first in enumerate(firsts)}
        merged.add(traced, {channel: place[part[0]] for channel, part in enumerate(parts)}, ())
        sizes = {len(part) for part in parts}
        if len(sizes) > 1:
            merged.reasons.append(f"{norms[0].module!r} normalises unequal numbers of its channels together")
        if merged.n_channels < 2:
            merged.reasons.append(explain_norm(norms[0].module))
        return merged

    def _slot(self, item: Any) -> tuple[Slot | None, bool]:
        """Return one item's slot (None if there is nothing to slice) and whether it is an input axis."""
        module, handler = item.dep.target.module, item.dep.handler
        pruner = handler.__self__
        is_input = handler == pruner.prune_in_channels and handler != pruner.prune_out_channels
        if isinstance(module, nn.Parameter):
            path, length = self.graph._param_to_name[module], module.shape[item.dep.target.pruning_dim]
        else:
            path = self.paths[module]
            length = pruner.get_in_channels(module) if is_input else pruner.get_out_channels(module)
        if length is None:
            return None, is_input
        channel_of = [-1] * length
        for index, channel in zip(item.idxs, item.root_idxs, strict=True):
            channel_of[index] = channel
        return Slot(path, tuple(channel_of)), is_input


_WITHOUT_WEIGHTS = frozenset(
    {
        ops.OPTYPE.CONCAT,
        ops.OPTYPE.SPLIT,
        ops.OPTYPE.ELEMENTWISE,
        ops.OPTYPE.RESHAPE,
        ops.OPTYPE.UNBIND,
        ops.OPTYPE.EXPAND,
        ops.OPTYPE.SLICE,
        ops.OPTYPE.OUTPUT,
    }
)


_SPLITTING = frozenset({ops.OPTYPE.SPLIT, ops.OPTYPE.SLICE, ops.OPTYPE.UNBIND})
