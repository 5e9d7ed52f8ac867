"""The checked way to call an importance method."""

from __future__ import annotations

import copy
import dataclasses
import errno
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dirprune.architecture import Architecture
from dirprune.device import exact_products, is_out_of_memory
from dirprune.errors import DirpruneError, ImportanceError, find_place, one_line
from dirprune.groups import Grouping
from dirprune.importance.base import Kept, Scorer, Scores, ScoringContext, Selector, keep_best
from dirprune.importance.code import is_from_outside
from dirprune.importance.dead import find_dead_channels
from dirprune.importance.untouched import Fingerprint
from dirprune.preemption import Preempted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Of errors of the system: no fault of the method that meets them."""


def compute_scores(method: Scorer, context: ScoringContext) -> Scores:
    """Score every channel with all checks: the way in which scores are computed everywhere.

    The caller's network is never handed to the method, only a frozen copy in evaluation mode. Dead channels
    (zero wherever they enter a consumer on all calibration images, or met there by zero weights only) are put
    strictly below every live channel of their group, here, once for all methods.

    Returns:
        float64 scores on the CPU, for each group a tensor of shape (n_channels,); higher means keep.
    Raises:
        ImportanceError: If scores are missing, of the wrong shape or not finite, if the method changed the
            network that it was lent, or if there is no calibration example.
    """
    if len(context.calibration) == 0:
        raise ImportanceError(
            "scoring needs at least one calibration example, got none; enlarge the training set"
        )
    lent = _lend(context)
    scores = _call_untouched(method, lent, lambda: method.score(lent))
    checked = _check_scores(method, scores, context.grouping)
    dead = find_dead_channels(lent)
    return {name: put_dead_last(values, dead[name]) for name, values in checked.items()}


def compute_selection(method: Selector, context: ScoringContext, architecture: Mapping[str, int]) -> Kept:
    """Choose channels with the same checks of the network as `compute_scores`.

    Args:
        architecture: Kept channels per group; groups that it does not name keep all.
    Returns:
        Sorted kept indices of every group, `architecture[group]` of them.
    Raises:
        ArchitectureError: If the architecture names another group, or keeps none or too many of one.
        ImportanceError: If a group is missing from what the method returns, or its indices are not that many
            different channels.
    """
    wanted = Architecture.complete(architecture, context.grouping)
    if isinstance(method, Scorer):
        return keep_best(compute_scores(method, context), wanted)
    lent = _lend(context)
    chosen = _call_untouched(method, lent, lambda: method.select(lent, wanted))
    name = type(method).__name__
    if not isinstance(chosen, Mapping):
        raise ImportanceError(
            f"{name} must return the kept indices of each group, got {_call(chosen)}; "
            "try return {group.name: indices, ...}"
        )
    if not set(chosen) >= set(context.grouping.names):
        raise ImportanceError(
            f"{name} must choose channels of the groups {_listed(context.grouping.names)}, "
            f"got {_listed_keys(chosen)}"
        )
    kept: Kept = {}
    for group in context.grouping.groups:
        given, n_kept = _read_indices(name, group.name, chosen[group.name]), wanted[group.name]
        indices = sorted(set(given))
        is_each_once = len(indices) == len(given) == n_kept
        if not is_each_once or indices[0] < 0 or indices[-1] >= group.n_channels:
            raise ImportanceError(
                f"{name} must keep {n_kept} of {group.n_channels} channels of {group.name!r}, each once, "
                f"got {given}"
            )
        kept[group.name] = indices
    return kept


def put_dead_last(scores: Tensor, is_dead: Tensor) -> Tensor:
    """Move the scores of dead channels strictly below those of all live ones, the rest unchanged.

    Dead channels get zero where that is below every live score, otherwise the lowest live score less the
    spread of the live ones. A group without live channels is left as it is.

    Args:
        scores: Shape (n_channels,).
        is_dead: Shape (n_channels,), bool.
    """
    live = scores[~is_dead]
    if len(live) == 0 or not is_dead.any():
        return scores
    lowest = float(live.min())
    below = 0.0 if lowest > 0 else lowest - (float(live.max()) - lowest or 1.0)
    return torch.where(is_dead & (scores >= lowest), torch.full_like(scores, below), scores)


def _lend(context: ScoringContext) -> ScoringContext:
    """Return the context with a copy of the network on the device, frozen and in evaluation mode.

    What is said once is said once of each scoring.
    """
    network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
    network.zero_grad(set_to_none=True)
    return dataclasses.replace(context, network=network, said=set())


def _call_untouched(method: Selector, lent: ScoringContext, call: Callable[[], Any]) -> Any:
    """Run a method on the network lent to it and refuse its result when it changed that network.

    A GPU rounds nothing to TF32 there: which kernel rounds how depends on the size of a batch, and scores are
    to be the same however many images fit into memory at once.
    """
    before = Fingerprint.of(lent.network)
    with exact_products(lent.device):
        result = _call_own(method, call) if is_from_outside(type(method)) else call()
    change = before.difference(lent.network)
    if change is not None:
        raise ImportanceError(
            f"{type(method).__name__} must leave the network as it was, got {change}; work on a copy of it"
        )
    return result


def _call_own(method: Selector, call: Callable[[], Any]) -> Any:
    """Return what a method from outside this package gives, or say where in its file it fails."""
    try:
        return call()
    except (DirpruneError, Preempted):
        raise
    except (Exception, SystemExit) as error:  # whatever it raises
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        place = find_place(error, method.score if isinstance(method, Scorer) else method.select)
        raise ImportanceError(
            f"the importance method {type(method).__name__} fails{place}: {one_line(error, has_type=True)}"
        ) from error


def _check_scores(method: Scorer, scores: Any, grouping: Grouping) -> Scores:
    """Return the scores as detached float64 tensors on the CPU, or say what is wrong with them."""
    name = type(method).__name__
    if not isinstance(scores, Mapping):
        raise ImportanceError(
            f"{name} must return the scores of each group, got {_call(scores)}; "
            "try return {group.name: tensor of shape (n_channels,), ...}"
        )
    if set(scores) != set(grouping.names):
        raise ImportanceError(
            f"{name} must score the groups {_listed(grouping.names)}, got {_listed_keys(scores)}"
        )
    checked: Scores = {}
    for group in grouping.groups:
        values = _read_numbers(name, group.name, scores[group.name])
        if values.shape != (group.n_channels,):
            raise ImportanceError(
                f"{name} must give {group.name!r} scores of shape ({group.n_channels},), "
                f"got {tuple(values.shape)}"
            )
        if not values.isfinite().all():
            bad = (~values.isfinite()).nonzero().flatten().tolist()
            raise ImportanceError(
                f"{name} must give finite scores, got {values[bad[0]]} for channel {bad[0]} "
                f"of {group.name!r} ({len(bad)} in all); look for NaN in weights and calibration inputs, "
                "or at a division or logarithm of zero in the method"
            )
        checked[group.name] = values
    return checked


def _read_indices(method: str, group: str, given: Any) -> list[int]:
    """Return a group's kept indices as they were given."""
    try:
        return [_read_index(index) for index in given]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImportanceError(
            f"{method} must give {group!r} the indices of channels, got {_call(given)} ({one_line(error)})"
        ) from error


def _read_index(given: Any) -> int:
    if isinstance(given, bool) or getattr(given, "dtype", None) is torch.bool:  # of a mask
        raise TypeError("expected whole numbers, got bools; try mask.nonzero().flatten()")
    return operator.index(given)


def _read_numbers(method: str, group: str, given: Any) -> Tensor:
    """Return a group's scores as a float64 tensor of their own on the CPU."""
    try:
        values = torch.as_tensor(given).detach()
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ImportanceError(
            f"{method} must give {group!r} a tensor of numbers, got {_call(given)} ({one_line(error)})"
        ) from error
    if values.is_complex():
        raise ImportanceError(
            f"{method} must give {group!r} real scores, got {values.dtype}; try .real or .abs()"
        )
    return values.to("cpu", torch.float64, copy=True)


def _call(given: Any) -> str:
    return "nothing" if given is None else f"a {type(given).__name__}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _listed_keys(given: Mapping[Any, Any]) -> str:
    """Return the names that something was given for, and what to do where a key is none."""
    kinds = sorted({type(key).__name__ for key in given if not isinstance(key, str)})
    names = _listed(key for key in given if isinstance(key, str))
    return f"keys of type {', '.join(kinds)}; try group.name as the key" if kinds else names
