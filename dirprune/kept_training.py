"""A training that leaves where it stands in a file, and goes on from there when it is asked for again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from dirprune.data.roles import DataRoles
from dirprune.recipe import Recipe
from dirprune.tasks import Task
from dirprune.training import train_
from dirprune.training_run import TrainingReport
from dirprune.training_state import CHECKPOINT_S, Interval, TrainingState


def train_kept_(
    network: nn.Module,
    roles: DataRoles,
    task: Task,
    recipe: Recipe,
    checkpoint: Path,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    teacher: nn.Module | None = None,
    kept: Callable[[], None] | None = None,
    origin: str | None = None,
) -> Iterator[TrainingReport]:
    """Train as `train_` does; the result is that of a training which was never cut off.

    Args:
        network: As for `train_`, and so are `roles`, `task`, `recipe`, `seed`, `device` and `teacher`.
        checkpoint: Where the training stands, written at every report and every five minutes; where the file
            is there, the training goes on from it. It is for the caller to give another training another
            file, and to remove this one once the weights are safe.
        kept: Called whenever the file has been written.
        origin: As for `TrainingState.load`.

    Yields:
        Reports by increasing images, no pauses.

    Raises:
        StudyError: If the file cannot be read.
        TrainingDiverged: As `train_` does.
        ConfigurationError: Likewise.
    """
    state = TrainingState.load(checkpoint, origin) if checkpoint.exists() else None
    interval = Interval(CHECKPOINT_S)
    for report in train_(
        network,
        roles,
        task,
        recipe,
        seed=seed,
        device=device,
        teacher=teacher,
        state=state,
        wants_pause=interval.is_over,
    ):
        report.capture().save(checkpoint)
        if kept is not None:
            kept()
        interval.restart()
        if not report.is_pause:
            yield report
