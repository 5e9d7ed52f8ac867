"""A user's own study: a regression with its own network, data, loss and metrics, in one script.

The network misbehaves while it learns at some widths, where the environment asks for it: `TOY_TROUBLE` is a
folder in which it leaves notes. It touches the file `TOY_SEEN` when it sees a batch of `LATENCY_BATCH`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from dirprune.cli.study import study_main
from dirprune.data import DataRoles, make_roles
from dirprune.recipe import Recipe
from dirprune.study.objectives import Objective
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

WIDTH = 16
LATENCY_BATCH = 8192
RAISES_AT, NAN_AT, DIES_AT = 12, 8, 5  # the uniform keep ratios 0.75, 0.5 and 0.3


class Toy(nn.Module):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        if (seen := os.environ.get("TOY_SEEN")) and len(inputs) == LATENCY_BATCH:
            Path(seen).touch()
        trouble = os.environ.get("TOY_TROUBLE")
        if trouble and self.training:
            self.misbehave(Path(trouble))
        outputs = self.last(torch.relu(self.second(torch.relu(self.first(inputs)))))
        is_nan = trouble and self.training and self.first.out_features == NAN_AT
        return outputs * float("nan") if is_nan else outputs

    def misbehave(self, notes: Path) -> None:
        """Raise at one width; at another let the process be ended, once or as often as `TOY_DEATHS` says.

        That is by the signal `TOY_SIGNAL`, or because it takes `TOY_BYTES` of memory.
        """
        if self.first.out_features == RAISES_AT:
            raise ValueError("no room for twelve channels")
        n_deaths = len(list(notes.glob("death-*")))
        if self.first.out_features == DIES_AT and n_deaths < int(os.environ.get("TOY_DEATHS", "1")):
            (notes / f"death-{n_deaths}").touch()
            if taken := int(os.environ.get("TOY_BYTES", "0")):
                held = b"1" * taken
                time.sleep(60)  # until Ray kills whoever holds so much
                raise MemoryError(f"nobody minded {len(held)} bytes")
            os.kill(os.getpid(), signal.Signals[os.environ.get("TOY_SIGNAL", "SIGKILL")])


def toy_data(root: Path | None, *, validation_from: str, seed: int) -> DataRoles:
    """Return a regression of two targets on six inputs."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(1200, 6, generator=generator)
    targets = torch.stack([inputs[:, 0] * inputs[:, 1], inputs[:, 2:].abs().sum(1)], dim=1)
    parts = (inputs[:1000], targets[:1000], inputs[1000:], targets[1000:])
    return make_roles("toy", *parts, validation_from=validation_from, seed=seed)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss per example, shape (n,)."""
    return (outputs - targets).abs().mean(1)


def regression(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return mean absolute error and explained variance."""
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    outputs = outputs.detach()
    residual = (outputs - targets).var(0) / targets.var(0)
    return {"mae": float((outputs - targets).abs().mean()), "r2": float((1 - residual).mean())}


spec = StudySpec(
    name="toy",
    network=Toy,
    data=toy_data,
    loss=absolute_error,
    evaluation=regression,
    objectives=(Objective("val_mae", "minimize"), Objective("parameters", "minimize")),
    reference_point={"val_mae": 3.0},
    space=SearchSpace(
        methods={"magnitude": {}, "taylor": {}},
        fine_tuning={"lr": Range(1e-3, 1e-2, log=True)},
        warm_starts=0,  # so that trials 1 to 3 are the uniform ones, which misbehave
    ),
    trials=8,
    epochs=4,
    rungs=(0, 2),
    dense=Recipe(images=0, batch_size=50, lr=5e-3),
    dense_epochs=10,
    fine_tuning=Recipe(images=0, batch_size=50),
)

if __name__ == "__main__":
    study_main(spec)
