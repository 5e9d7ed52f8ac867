"""A worker beside the one that leads a training which several share."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from dirprune.data.roles import DataRoles
from dirprune.data.streaming import StreamedSplit
from dirprune.layers import laid_out
from dirprune.parallel import Job, Part, Share
from dirprune.tasks import Task
from dirprune.training_run import TrainingRun
from dirprune.training_state import Segment


class Peer:
    """A worker beside the one that leads: it computes its part of every batch of one training.

    Its process has entered the process group.

    Args:
        share: Which part.
        roles: As the one that leads has them.
        task: The same.
        device: Where to compute.
    """

    def __init__(self, share: Share, roles: DataRoles, task: Task, device: str) -> None:
        self.share, self.roles, self.task, self.device = share, roles.to(device), task, device
        self.together = ExitStack()
        self.run: TrainingRun | None = None

    def begin(self, job: Job) -> None:
        """Take up a training, and leave the one before."""
        self.together.close()
        self.run = None
        self.together = ExitStack()
        device = torch.device(self.device)
        network = job.network.to(device)
        run = TrainingRun(network, self.roles, self.task, job.recipe, job.seed, device, job.teacher)
        self.together.enter_context(laid_out(network, job.recipe.channels_last))
        self.together.callback(run.ahead.close)
        run.n_parts = 2 if job.in_halves else 1
        if job.state is not None:
            run.restore_(job.state)
        run.spread_out_(self.share, self.together)
        self.run = run

    def advance(self, segment: Segment, until: int) -> Part:
        """Train a segment up to a step."""
        assert self.run is not None
        self.run.take_steps_(segment, wants_pause=lambda: False, until=until)
        train = self.roles.train
        unreadable = dict(train.index.broken) if isinstance(train, StreamedSplit) else {}
        return Part(segment.summed, segment.randomness, unreadable)
