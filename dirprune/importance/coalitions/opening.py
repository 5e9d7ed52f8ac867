"""Chooses how the values of a group's coalitions are computed, and where they are kept."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, fx, nn

from dirprune.device import SHORTAGE_ERRORS
from dirprune.errors import one_line
from dirprune.groups import Grouping
from dirprune.identity import digest
from dirprune.importance.base import Progress, ScoringContext
from dirprune.importance.cache import context_key
from dirprune.importance.coalitions.contributions import has_contributions
from dirprune.importance.coalitions.engines import ContributionValues, PrefixValues
from dirprune.importance.coalitions.graph import find_calls, trace
from dirprune.importance.coalitions.judge import Judge
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.importance.coalitions.prefix import Handover
from dirprune.importance.coalitions.store import StoredValues
from dirprune.importance.coalitions.tiles import TiledValues
from dirprune.importance.coalitions.values import CoalitionValues
from dirprune.importance.footprint import allow
from dirprune.importance.fresh_norm import count_in_part, find_fresh_norms, with_fresh_norms
from dirprune.importance.parts import Shortage

logger = logging.getLogger(__name__)

VALUES_VERSION = 3  # raised when the same coalitions get other values
N_CHECKED = 4  # coalitions, on twice as many examples, on which an engine is compared with masking
LARGEST_PASS = 500
CHECK_TOLERANCE = 1e-3  # of the largest output; float32 stays below 1e-5


class Opener:
    """Opens the values of a network's groups one after the other; what they have in common is done once.

    While it is used, the network must not change. Args and Raises are those of `open_values`.
    """

    def __init__(
        self,
        context: ScoringContext,
        *,
        value: str = "loss",
        is_recalibrated: bool = False,
        is_stored: bool = True,
    ) -> None:
        self.context = context
        self.is_recalibrated = is_recalibrated
        self.is_stored = is_stored
        self.judge = Judge(context.task, value)
        self.judged = with_fresh_norms(context, are_all=is_recalibrated)
        self.has_fresh_norms = bool(find_fresh_norms(self.judged.network))
        self.shortage = Shortage(said=context.said)
        self.handover: Handover | None = None
        if len(context.grouping.names) > 1 and not self.has_fresh_norms:
            # Two of them are there at once: what is known, and what is being collected.
            self.handover = Handover(len(context.calibration), (context.memory_mb << 20) // 8)

    @functools.cached_property
    def traced(self) -> fx.GraphModule | None:
        """The whole network as a graph, which nobody may change; None where it cannot be traced."""
        return trace(self.judged.network)

    @functools.cached_property
    def n_in_pass(self) -> int:
        """How many examples the whole network takes at once."""
        size = min(LARGEST_PASS, len(self.context.calibration))
        return max(1, size >> allow(self.context, size, is_differentiated=False).n_halvings)

    def open(
        self,
        group: str,
        kept: Mapping[str, Sequence[int]] | None = None,
        progress: Progress | None = None,
    ) -> CoalitionValues:
        """Return what computes the values of a group's coalitions; see `open_values`.

        Args:
            progress: Is told in place of the context's.
        """
        others = {name: channels for name, channels in (kept or {}).items() if name != group}
        values = choose_engine(self, group, others)
        progress = progress or self.context.progress
        if not self.is_stored or (self.context.workspace is None and progress is None):
            return values
        path = self._find_file(values, others)
        told = None if progress is None else functools.partial(progress, values.group)
        return StoredValues(values, path, told)

    def _find_file(self, values: CoalitionValues, others: Mapping[str, Sequence[int]]) -> Path | None:
        """Return where a group's values are kept; None where the context has no workspace."""
        context = self.context
        if context.workspace is None:
            return None
        key = digest(
            {
                "values_version": VALUES_VERSION,
                "context": context_key(context),
                "group": values.group,
                "kept": {name: sorted(channels) for name, channels in others.items()},
                "value": self.judge.value,
                "is_recalibrated": self.is_recalibrated,
            }
        )
        return context.workspace / "coalitions" / f"{key}.jsonl"


def open_values(
    context: ScoringContext,
    group: str,
    kept: Mapping[str, Sequence[int]] | None = None,
    *,
    value: str = "loss",
    is_recalibrated: bool = False,
    is_stored: bool = True,
) -> CoalitionValues:
    """Return what computes the values of a group's coalitions.

    With a workspace in the context, values are kept there and found again by any process.

    Args:
        context: The network must be in evaluation mode; it is left as it is.
        group: Name of the channel group.
        kept: Channels to which other groups are cut already; groups that are not named are whole.
        value: "loss" (minus the mean loss, the better conditioned one) or "accuracy".
        is_recalibrated: Whether batch norm takes the statistics of the coalition's own examples (see
            `FreshNorm`) in place of the stored ones, as it will when it is recalibrated after pruning.
        is_stored: Whether to use the workspace.
    Raises:
        ImportanceError: If the value is unknown, or the workspace cannot be written.
    """
    opener = Opener(context, value=value, is_recalibrated=is_recalibrated, is_stored=is_stored)
    opener.handover = None
    return opener.open(group, kept)


def choose_engine(opener: Opener, group: str, others: Mapping[str, Sequence[int]]) -> CoalitionValues:
    """Return the fastest way of computing values that a group's place in the network allows.

    Each is tried on a few examples and coalitions, and taken only if it gives the outputs of masking the
    whole network.
    """
    context, judge = opener.judged, opener.judge
    # Batch norm that takes the statistics of the examples at hand needs them at once, whatever that takes.
    batch_size = count_in_part(len(context.calibration)) if opener.has_fresh_norms else opener.n_in_pass
    masked = MaskedValues(context, group, others, judge, batch_size)
    masked.shortage = opener.shortage
    if len(context.calibration) == 0:
        return masked
    for make in (_open_contributions, _open_prefix):
        try:
            is_shared = make is _open_contributions and not others  # the others write in it
            traced = opener.traced if is_shared else trace(context.network)
            if traced is None:
                break
            cut_(traced, context.grouping, others)
            with contextlib.redirect_stderr(
                io.StringIO()
            ):  # where fx shows failures that are dealt with here
                values = make(context, group, judge, traced)
                if values is None:
                    continue
                if is_shared and opener.handover is not None:
                    values.take_over(opener.handover)
                if _is_right(values, masked, context):
                    values.start_small(opener.shortage)
                    return values
        except (*SHORTAGE_ERRORS, ValueError, TypeError, IndexError, AttributeError) as error:
            logger.info("%s: %s does not serve: %s", group, make.__name__, one_line(error, has_type=True))
    logger.warning("coalitions of %s are evaluated by the whole network, which is slow", group)
    return masked


def _open_contributions(
    context: ScoringContext, group: str, judge: Judge, traced: fx.GraphModule
) -> TiledValues | None:
    slots = context.grouping[group].consumers
    calls = find_calls(traced, slots[0].module)
    if len(slots) != 1 or len(calls) != 1 or not has_contributions(traced.get_submodule(slots[0].module)):
        return None
    values = ContributionValues(context, group, judge, traced, slots[0], calls[0])
    return values if values.fits(values.shared) else None


def _open_prefix(
    context: ScoringContext, group: str, judge: Judge, traced: fx.GraphModule
) -> TiledValues | None:
    return PrefixValues(context, group, judge, traced)


def _is_right(values: TiledValues, masked: MaskedValues, context: ScoringContext) -> bool:
    """Return whether an engine gives the outputs of masking for some coalitions on some examples."""
    n_channels = values.n_channels
    generator = torch.Generator().manual_seed(0)
    coalitions = torch.rand(N_CHECKED, n_channels, generator=generator) < 0.5
    inputs, _ = context.load(slice(0, 2 * N_CHECKED))
    expected = masked.compute_outputs(inputs, coalitions)
    if values.known:
        found = values.compute_outputs(inputs, coalitions, values.read_known(0, len(inputs)))
        if found.shape == expected.shape and _is_near(found, expected):
            few = values.compute_outputs(inputs[:1], coalitions[:1])
            return _is_near(few, expected[:1, :1])
        values.known = {}
    found = values.compute_outputs(inputs, coalitions)
    if found.shape != expected.shape:
        return False
    if values.norms:
        return _is_near(found, expected)
    # Neither the size of a batch nor what was computed before may matter.
    few = values.compute_outputs(inputs[:1], coalitions[:1])
    return _is_near(found, expected) and _is_near(few, expected[:1, :1])


def _is_near(found: Tensor, expected: Tensor) -> bool:
    """Return whether outputs agree, finite ones and others."""
    is_finite = expected.isfinite()
    if not torch.equal(found.isfinite(), is_finite):
        return False
    differences = (found - expected).abs()[is_finite]
    return (
        bool((differences <= CHECK_TOLERANCE * expected[is_finite].abs().max()).all())
        if len(differences)
        else True
    )


@torch.no_grad()
def cut_(traced: nn.Module, grouping: Grouping, kept: Mapping[str, Sequence[int]]) -> None:
    """Cut groups in place: zeros replace the weights with which removed channels enter their consumers."""
    for name, channels in grouping.checked_kept(kept).items():
        present = torch.zeros(grouping[name].n_channels + 1)
        present[[*channels, -1]] = 1  # the last for what is not of the group
        for slot in grouping[name].consumers:
            layer = traced.get_submodule(slot.module)
            weight = cast(Tensor, layer.weight)
            shape = [1] * weight.dim()
            shape[0 if getattr(layer, "transposed", False) else 1] = -1
            weight.mul_(present[list(slot.channel_of)].reshape(shape).to(weight))
