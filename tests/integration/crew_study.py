"""A tiny study whose trials are trained by several workers, one of which may be lost or raise.

`CREW_TROUBLE` is a folder in which the network leaves a note when it has ended its process; with
`CREW_MEMORY` set the second worker has memory for a few images only.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dirprune.data import DataRoles, make_roles
from dirprune.recipe import Recipe
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec

RAISES_AT, DIES_AT = 6, 4  # the uniform keep ratios 0.75 and 0.5
STEPS_BEFORE = 30
SMALL_MEMORY = 5
"""Images that a worker has memory for; its part of a batch has up to 9."""


class Normed(nn.Module):
    """A convolution and a linear layer, each with batch norm, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Linear(8 * 16, 8)
        self.norm2 = nn.BatchNorm1d(8, momentum=None)
        self.last = nn.Linear(8, 3)
        self.unused = nn.Parameter(torch.ones(2))
        self.n_steps = 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_rank() == 1:
            self.n_steps += 1
            self.misbehave()
        hidden = torch.relu(self.norm(self.first(images))).flatten(1)
        return self.last(torch.relu(self.norm2(self.second(hidden))))

    def misbehave(self) -> None:
        """Raise at one width, let the process be ended once at another."""
        if "CREW_TROUBLE" not in os.environ or self.n_steps < STEPS_BEFORE:
            return
        if self.first.out_channels == RAISES_AT:
            raise ValueError("no room for six channels")
        note = Path(os.environ["CREW_TROUBLE"]) / "died"
        if self.first.out_channels == DIES_AT and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Greedy(nn.Module):
    """No batch norm, so that halves of a batch do what the whole does; one worker's memory may be small."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.last = nn.Linear(8 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        is_small = "CREW_MEMORY" in os.environ and dist.is_initialized() and dist.get_rank() == 1
        if self.training and is_small and len(images) > SMALL_MEMORY:
            torch.empty(2**55)
        return self.last(torch.relu(self.first(images)).flatten(1))


def rows_data(root: Path | None, *, validation_from: str, seed: int) -> DataRoles:
    """Return images of 6 x 6 in three classes, each bright in its own row."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(400) % 3
    images = torch.randint(0, 200, (400, 1, 6, 6), generator=generator)
    images[torch.arange(400), 0, targets] += 40
    parts = (images[:343].to(torch.uint8), targets[:343], images[343:].to(torch.uint8), targets[343:])
    return make_roles("rows", *parts, validation_from=validation_from, seed=seed, n_classes=3)


spec = StudySpec(
    name="crew",
    network=Normed,
    data=rows_data,
    space=SearchSpace(methods={"magnitude": {}}, warm_starts=0),
    trials=4,
    epochs=4,
    rungs=(0, 1),
    halving="none",
    dense=Recipe(images=0, batch_size=17),
    dense_epochs=2,
    fine_tuning=Recipe(images=0, batch_size=17, optimizer="sgd", lr=0.02, shift=1, distillation=0.5),
)
