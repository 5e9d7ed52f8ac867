"""A made-up study of LeNet-5 for the tests of tables, pictures and tracking."""

from __future__ import annotations

import math

import numpy as np

from dirprune.records.finalists import Finalist
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective

N_CHANNELS = {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25}
OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("macs", "minimize"))
LATENCY_OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize", margin=0.1))
METHODS = ("dirichlet", "magnitude", "taylor")


def make_trial(
    number: int, source: str, keep_ratio: float, accuracy: float, **changes: object
) -> TrialRecord:
    """Return a finished trial whose costs follow from its keep ratio."""
    architecture = {name: max(1, round(n * keep_ratio)) for name, n in N_CHANNELS.items()}
    macs = float(round(498_750 * keep_ratio**1.7))
    curve = tuple((images, {"val_accuracy": accuracy * (0.5 + images / 2400)}) for images in (0, 600, 1200))
    fields: dict = {
        "state": "COMPLETE",
        "method": METHODS[number % len(METHODS)],
        "options": {"lr": 0.001, "norm": "l1"},
        "curve": curve,
        "times": (1.7e9 + number, 1.7e9 + number + 1, 1.7e9 + number + 2),
        "started_at": 1.7e9 + number,
        "metrics": {
            "val_accuracy": accuracy,
            "val_loss": 2 * (1 - accuracy),
            "test_accuracy": accuracy - 0.002,
            "macs": macs,
            "parameters": float(round(40_225 * keep_ratio**1.8)),
            "wall_time_s": 3.5,
        },
        **changes,
    }
    return TrialRecord(number=number, source=source, architecture=architecture, **fields)


def make_timed(number: int, accuracy: float, latency_ms: float) -> TrialRecord:
    """Return a finished trial of a study that trades latency; its MACs follow the latency."""
    metrics = {"val_accuracy": accuracy, "latency_ms": latency_ms, "macs": latency_ms}
    return make_trial(number, "sampler", 0.5, accuracy, metrics=metrics)


def make_study(n_trials: int = 60, seed: int = 0) -> list[TrialRecord]:
    """Return the dense network, two uniform ones and sampled trials, of which every third was stopped."""
    rng = np.random.default_rng(seed)
    records = [make_trial(0, "dense", 1.0, 0.9925, method="", options={})]
    records += [make_trial(1, "uniform", 0.5, 0.9885), make_trial(2, "uniform", 0.25, 0.971)]
    for number in range(3, n_trials):
        ratio = float(rng.uniform(0.08, 0.95))
        error = 0.0075 + 0.25 * math.exp(-9 * ratio) + float(rng.exponential(0.006))
        if number % 3 == 0:
            trial = make_trial(number, "sampler", ratio, 0.3 + 0.6 * float(rng.random()), state="PRUNED")
        else:
            trial = make_trial(number, "sampler", ratio, 1 - error)
        records.append(trial)
    return records


def make_finalist(number: int, keep_ratio: float, accuracy: float, spread: float, is_front: bool) -> Finalist:
    """Return a finalist of three seeds."""
    record = make_trial(number, "sampler", keep_ratio, accuracy, is_front=is_front)
    return Finalist(record, {"val_accuracy": spread, "macs": 0.0}, 3, 1)


FINALISTS = [make_finalist(7, 0.4, 0.98, 0.004, True), make_finalist(8, 0.7, 0.975, 0.0, False)]
