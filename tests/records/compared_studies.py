"""Studies to compare, with records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dirprune.records.comparison import ComparedStudy
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.difference import complete
from dirprune.study.floor import Floor
from dirprune.study.objectives import read_objectives
from dirprune.study.observer import StudySummary
from tests.records.example_study import N_CHANNELS, make_trial

DENSE = {"val_accuracy": 0.99, "test_accuracy": 0.98}
POINTS = ((0.9, 500.0), (0.8, 250.0))  # accuracy and MACs of trials 1 and 2; the dense network has 1,000


def make_compared(
    label: str,
    points: Sequence[tuple[float, float]] = POINTS,
    *,
    seed: int = 0,
    floor: float | None = 0.5,
    methods: Sequence[str] = ("magnitude",),
    ending: str | None = "",
    others: Sequence[TrialRecord] = (),
    **changes: Any,
) -> ComparedStudy:
    """Return a study of the dense network and a trial for each point; test is 0.01 below validation."""
    records = [
        make_trial(
            number,
            "sampler" if number else "dense",
            0.5,
            accuracy,
            metrics={"val_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "macs": macs},
            is_acceptable=floor is None or accuracy >= floor,
        )
        for number, (accuracy, macs) in enumerate([(0.99, 1000.0), *points])
    ]
    description = {
        **complete({}),
        "data": {"name": "digits", "fingerprint": "a", "validation_from": "train:0.1"},
        "space": {**complete({})["space"], "methods": {method: {} for method in methods}},
        "weights": "0123456789",
        "groups": N_CHANNELS,
        "seed": seed,
        **changes,
    }
    least = None if floor is None else Floor(floor, 0)
    reference = {"val_accuracy": 0.1, "macs": 1000.0}
    summary = StudySummary(
        name=label,
        study_id=label,
        folder=StudyFolder(Path(label)),
        objectives=read_objectives(description),
        reference_point=reference if least is None else least.raised(reference),
        dense_costs={"macs": 1000.0},
        n_channels=N_CHANNELS,
        n_trials=3,
        seed=seed,
        floor=least,
    )
    return ComparedStudy(label, summary, description, DENSE, [*records, *others], ending)


def make_other(
    label: str, objectives: Sequence[tuple[str, str]], reference: Sequence[float], *rows: Sequence[float]
) -> ComparedStudy:
    """Return a study of other objectives: a reference value for each, and trials from number 1 on by row."""
    metrics = [metric for metric, _ in objectives]
    study = make_compared(label, floor=None, objectives=[list(one) for one in objectives])
    records = [
        make_trial(number, "sampler", 0.5, 0.5, metrics=dict(zip(metrics, row, strict=True)))
        for number, row in enumerate(rows, start=1)
    ]
    reference_point = dict(zip(metrics, reference, strict=True))
    costs = {"macs": 1000.0, "parameters": 100.0}
    summary = replace(study.summary, reference_point=reference_point, dense_costs=costs)
    return replace(study, summary=summary, records=records)
