"""A tiny study of the digits whose trials take their time: something to be killed in the middle of."""

from __future__ import annotations

import os
import time

from torch import Tensor

from dirprune.cli.study import study_main
from dirprune.recipe import Recipe
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec

SECONDS = float(
    os.environ.get("DIGITS_SECONDS", "0")
)  # read by the driver: workers inherit their node's variables


def accuracy(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the fraction of right answers, after a pause."""
    time.sleep(SECONDS)
    return {"accuracy": float((outputs.argmax(1) == targets).float().mean())}


spec = StudySpec(
    name="digits",
    network="lenet5",
    network_options={"widths": (6, 8, 24, 12)},
    data="digits",
    evaluation=accuracy,
    space=SearchSpace(min_keep_ratio=0.25, methods={"magnitude": {}, "taylor": {}}),
    trials=400,
    epochs=4,
    rungs=(0, 2),
    train_images=500,
    dense=Recipe(images=0, batch_size=50, lr=5e-3),
    dense_epochs=8,
    fine_tuning=Recipe(images=0, batch_size=50),
)

if __name__ == "__main__":
    study_main(spec)
