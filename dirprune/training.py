"""Train and fine-tune, with reports at epochs and rungs and states from which a training goes on.

Small data sets lie on the device as they are stored and are normalised batch by batch; large ones come from
worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from dirprune.data.roles import DataRoles
from dirprune.evaluation import evaluate
from dirprune.layers import laid_out, modes_restored
from dirprune.parallel import Crew
from dirprune.recipe import Recipe
from dirprune.tasks import Task
from dirprune.training_run import TrainingReport, TrainingRun
from dirprune.training_state import Segment, TrainingState

__all__ = ["Recipe", "TrainingReport", "TrainingState", "evaluate", "train_"]


def train_(
    network: nn.Module,
    roles: DataRoles,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    teacher: nn.Module | None = None,
    state: TrainingState | None = None,
    stops: Sequence[int] = (),
    wants_pause: Callable[[], bool] = lambda: False,
    crew: Crew | None = None,
    in_halves: bool = False,
    note_shortage: Callable[[], None] = lambda: None,
) -> Iterator[TrainingReport]:
    """Train `network` in place, reporting at every epoch's end, at every stop and at the end.

    Args:
        network: Moved to `device`; trains in training mode and gets its modes back at the end.
        roles: Weights learn from the train role, metrics come from the validation role.
        task: Gives the loss and the metrics.
        recipe: How to train.
        seed: Decides the order of images and whatever is random in the network (dropout). The global
            generators are as before at every report.
        device: Where to compute; the data is moved there whole.
        teacher: For distillation; stays as it is.
        state: Go on from here, with the same other arguments; bit for bit on a CPU.
        stops: Further resources at which to report, in training images; 0 reports before any training. Those
            beyond `recipe.images` are ignored.
        wants_pause: Asked after each step whether to yield a pause there, in which the state can be captured.
        crew: Workers that compute parts of every batch; the result is the same up to rounding, where all
            images can be read: one that cannot counts in the mean as if it had no loss. They are asked to
            pause after some steps only, and evaluation is left to this one.
        in_halves: Compute in halves from the beginning, see below.
        note_shortage: Called where memory runs out at a worker of a crew, before this process ends: whoever
            goes on with the training is to do so `in_halves`.

    Where memory runs out in a step, that step and all others compute in two halves whose gradients add up:
    the batch that the weights learn from stays, batch norm sees halves of it. Workers of a crew cannot go
    back by one step: they end, and the training goes on from its last state with the parts of all in halves.

    Yields:
        Reports by increasing images; at least one, also when nothing is left to train.

    Raises:
        TrainingDiverged: If the loss or a metric is no longer finite.
        ConfigurationError: If the recipe asks for a teacher or a metric that is not there, or memory runs out
            with halves of batches too.
    """
    run = TrainingRun(network.to(device), roles.to(device), task, recipe, seed, torch.device(device), teacher)
    run.n_parts = 2 if in_halves else 1
    with modes_restored(network), laid_out(network, recipe.channels_last), ExitStack() as together:
        together.callback(run.ahead.close)
        together.callback(run.replay.stop_)
        if state is not None:
            run.restore_(state)
        if crew is not None and recipe.images > 0 and not (state is not None and state.is_last):
            run.lead_(crew, state, note_shortage, together)
        if state is not None:
            if state.is_last:
                yield run.report(state.images, state.metrics, is_last=True)
                return
        elif recipe.images == 0 or 0 in stops:
            yield run.evaluate_(0, {})
        images = 0 if state is None else state.reported_images
        n_epoch = len(roles.train)
        epoch_ends = range(n_epoch, recipe.images, n_epoch)
        for stop in sorted({*epoch_ends, *stops, recipe.images}):
            if images < stop <= recipe.images and not run.is_exhausted:
                segment = run.segment or Segment(images, stop)
                while not run.advance_(segment, wants_pause):
                    yield run.pause(segment)
                images = stop
                yield run.evaluate_(images, run.sum_up_(segment))
