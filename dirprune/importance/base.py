"""What an importance method is (a scorer or a selector), and what it may see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dirprune.data.roles import Split
from dirprune.errors import ImportanceError
from dirprune.groups import Grouping
from dirprune.tasks import Task

MEMORY_MB = 1024

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
        said: What the user was warned of already, so that it is said once.
        answers: What `context_key` has found out, so that it is found out once; the code of the network must
            not change while a context is in use.
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
    said: set[str] = field(default_factory=set, compare=False, repr=False)
    answers: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

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

    @property
    def is_timed(self) -> bool:
        """Whether a clock decides, so that `depends_on` names the machine."""
        return False

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
