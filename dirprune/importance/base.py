"""What an importance method is (a scorer or a selector), what it may see, and the checked way to call it."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dirprune.data.roles import Split
from dirprune.errors import ImportanceError
from dirprune.groups import Grouping
from dirprune.importance.channels import find_dead_channels
from dirprune.importance.untouched import Fingerprint
from dirprune.tasks import Task

MEMORY_MB = 1024
N_FOR_DEAD = 64  # examples in a batch: nearly always the first one shows every channel alive

Scores = dict[str, Tensor]
Kept = dict[str, list[int]]
Progress = Callable[[str, int, int], None]
"""Called as progress(what, n_done, n_total) whenever more is done; `what` names the piece of work."""


@dataclass(frozen=True)
class ScoringContext:
    """Everything that a method may look at; there is deliberately no validation and no test split in it.

    Attributes:
        network: The dense network. Methods are given a copy of it: frozen, in evaluation mode, on `device`.
        grouping: The channel groups to score.
        calibration: The images that a method may use, a part of the training set.
        normalise: From a split's raw inputs to what the network takes.
        task: The loss; nothing here assumes classification.
        seed: The only source of randomness.
        device: Where to compute.
        workspace: Folder where a method may keep what it has computed so far, so that it goes on there after
            an interruption; None keeps nothing. Never changes a score.
        memory_mb: Memory in MiB that coalitions and derivatives may take, whatever the size of the data. One
            example is looked at whatever it takes, and so are those from which batch norm takes statistics.
        progress: Told, on long work, what is being done and how much of it is.
    """

    network: nn.Module
    grouping: Grouping
    calibration: Split
    normalise: Callable[[Tensor], Tensor]
    task: Task
    seed: int = 0
    device: str | torch.device = "cpu"
    workspace: Path | None = None
    memory_mb: int = MEMORY_MB
    progress: Progress | None = None

    def load(self, positions: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return normalised inputs and targets of some calibration examples, on the device."""
        inputs = self.calibration.inputs[positions].to(self.device)
        return self.normalise(inputs), self.calibration.targets[positions].to(self.device)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every calibration example once, in order, as normalised inputs and targets on the device."""
        for start in range(0, len(self.calibration), batch_size):
            yield self.load(slice(start, start + batch_size))


@dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none."""


class Selector(ABC):
    """Chooses the channels to keep for a given architecture.

    The network in the context is the method's own copy, frozen and in evaluation mode; it must be left as it
    was found. All randomness must come from `context.seed`.

    Args:
        options: An instance of the class's `Options`, a frozen dataclass; its defaults when None.
    """

    Options: ClassVar[type] = NoOptions
    is_kept_in_parts: ClassVar[bool] = False
    """Whether what it has computed is kept in the workspace as it goes, not only once all is there."""

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options
        if not isinstance(self.options, self.Options):
            raise ImportanceError(
                f"options of {type(self).__name__} must be a {self.Options.__name__}, "
                f"got {type(self.options).__name__}; a method by name takes a mapping"
            )

    def depends_on(self, context: ScoringContext) -> Any:
        """Return what else than weights, images, options and seed the choice depends on, as plain data.

        None, as nearly always, leaves it out of the keys of the cache.
        """
        return None

    @abstractmethod
    def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> Kept:
        """Return the kept channels of every group, sorted, as many as `architecture` says."""


class Scorer(Selector):
    """Gives every channel one number, from which any architecture follows: keep the best of each group."""

    @abstractmethod
    def score(self, context: ScoringContext) -> Scores:
        """Return the scores of every group, each of shape (n_channels,); higher means keep.

        Only the order within a group has a meaning.
        """

    def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> Kept:
        """Return the best-scored channels of every group."""
        return keep_best(self.score(context), architecture)


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
    dead = find_dead_channels(lent.network, lent.grouping, (inputs for inputs, _ in lent.batches(N_FOR_DEAD)))
    return {name: put_dead_last(values, dead[name]) for name, values in checked.items()}


def compute_selection(method: Selector, context: ScoringContext, architecture: Mapping[str, int]) -> Kept:
    """Choose channels with the same checks of the network as `compute_scores`.

    Returns:
        Sorted kept indices of every group, `architecture[group]` of them.
    Raises:
        ImportanceError: If a group is missing, or its indices are not that many different channels.
    """
    if isinstance(method, Scorer):
        return keep_best(compute_scores(method, context), architecture)
    lent = _lend(context)
    chosen = _call_untouched(method, lent, lambda: method.select(lent, architecture))
    kept: Kept = {}
    for group in context.grouping.groups:
        indices = sorted({int(index) for index in chosen.get(group.name, ())})
        n_kept = architecture[group.name]
        if len(indices) != n_kept or indices[0] < 0 or indices[-1] >= group.n_channels:
            raise ImportanceError(
                f"{type(method).__name__} must keep {n_kept} of {group.n_channels} channels "
                f"of {group.name!r}, got {list(chosen.get(group.name, ()))}"
            )
        kept[group.name] = indices
    return kept


def keep_best(scores: Mapping[str, Tensor], architecture: Mapping[str, int]) -> Kept:
    """Return the indices of the best-scored channels of each group, sorted; of equals the lower index stays.

    Args:
        scores: For each group a tensor of shape (n_channels,); higher means keep.
        architecture: Kept channels per group; groups that it does not name keep all.
    """
    kept: Kept = {}
    for name, values in scores.items():
        order = torch.argsort(values, descending=True, stable=True)
        kept[name] = sorted(order[: architecture.get(name, len(values))].tolist())
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
    """Return the context with a copy of the network on the device, frozen and in evaluation mode."""
    network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
    network.zero_grad(set_to_none=True)
    return dataclasses.replace(context, network=network)


def _call_untouched(method: Selector, lent: ScoringContext, call: Callable[[], Any]) -> Any:
    """Run a method on the network lent to it and refuse its result when it changed that network."""
    before = Fingerprint.of(lent.network)
    result = call()
    change = before.difference(lent.network)
    if change is not None:
        raise ImportanceError(
            f"{type(method).__name__} must leave the network as it was, got {change}; work on a copy of it"
        )
    return result


def _check_scores(method: Scorer, scores: Mapping[str, Tensor], grouping: Grouping) -> Scores:
    """Return the scores as detached float64 tensors on the CPU, or say what is wrong with them."""
    name = type(method).__name__
    if set(scores) != set(grouping.names):
        raise ImportanceError(
            f"{name} must score the groups {_listed(grouping.names)}, got {_listed(scores)}"
        )
    checked: Scores = {}
    for group in grouping.groups:
        values = torch.as_tensor(scores[group.name]).detach().to("cpu", torch.float64).clone()
        if values.shape != (group.n_channels,):
            raise ImportanceError(
                f"{name} must give {group.name!r} scores of shape ({group.n_channels},), "
                f"got {tuple(values.shape)}"
            )
        if not values.isfinite().all():
            bad = (~values.isfinite()).nonzero().flatten().tolist()
            raise ImportanceError(
                f"{name} must give finite scores, got {values[bad[0]]} for channel {bad[0]} "
                f"of {group.name!r} ({len(bad)} in all); look for NaN in weights and calibration inputs"
            )
        checked[group.name] = values
    return checked


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
