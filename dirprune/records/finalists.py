"""A study's finalists: members of the front that were trained again in full, in several seeds."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from dirprune.files import write_atomically
from dirprune.pareto import hypervolume_contributions, to_losses
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.front import find_judged, mark_front
from dirprune.records.record import State, TrialRecord, make_record
from dirprune.records.tables import format_architecture
from dirprune.study.floor import Floor
from dirprune.study.objectives import Objective

_FOLDER = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class FinalTraining:
    """One training of one finalist.

    Attributes:
        record: Its trial with the state, metrics and curve of this training; RUNNING also where it waits for
            a driver that goes on with it.
        repetition: Which seed, from 0.
    """

    record: TrialRecord
    repetition: int


@dataclass(frozen=True)
class Finalist:
    """One architecture and what its trainings gave.

    Attributes:
        record: Its trial, with the metrics replaced by their means over the seeds and without a curve.
        spread: Standard deviation over the seeds (n - 1) of each metric; empty for a single seed.
        n_seeds: Trainings that finished, >= 1.
        best: The repetition whose network is the one to deploy: the best by validation.
    """

    record: TrialRecord
    spread: Mapping[str, float]
    n_seeds: int
    best: int

    def model_dir(self, folder: StudyFolder) -> Path:
        """Return where the network to deploy is stored."""
        return folder.finalist(self.record.number, self.best).model_dir(self.record.number)


def choose_finalists(
    front: Sequence[TrialRecord],
    n_finalists: int,
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    scale: Mapping[str, float],
) -> list[TrialRecord]:
    """Choose members of a front: the one that adds least to the hypervolume goes until few enough are left.

    The dense network is none of them: nothing of it was pruned.

    Args:
        front: Trials on the front.
        n_finalists: Members to choose at most; >= 1.
        objectives: What the study trades.
        reference_point: Worst acceptable value per objective metric.
        scale: What an objective is divided by: the dense network's costs; 1 where it is not here.

    Returns:
        The chosen trials, in the order of `front`.
    """
    chosen = [record for record in front if record.source != "dense"]
    metrics = [objective.metric for objective in objectives]
    directions = [objective.direction for objective in objectives]
    divisor = np.array([float(scale.get(metric, 1.0)) for metric in metrics])
    corner = np.array([[reference_point[metric] for metric in metrics]]) / divisor
    while len(chosen) > n_finalists:
        values = np.array([[record.metrics[metric] for metric in metrics] for record in chosen]) / divisor
        gains = hypervolume_contributions(to_losses(values, directions), to_losses(corner, directions)[0])
        least = min(range(len(chosen)), key=lambda place: (gains[place], -chosen[place].number))
        del chosen[least]
    return chosen


def read_training(folder: StudyFolder, trial: TrialRecord, repetition: int) -> FinalTraining:
    """Read what one training of a finalist has said so far."""
    events = replay(read_events(folder.finalist(trial.number, repetition).events(trial.number)))
    state: State = "COMPLETE" if events.finished else "FAIL" if events.failed else "RUNNING"
    reason = str(events.failed.get("reason", "")) if events.failed and state == "FAIL" else None
    record = make_record(
        events,
        number=trial.number,
        state=state,
        source=trial.source,
        architecture=trial.architecture,
        method=trial.method,
        options=trial.options,
        reason=reason,
    )
    return FinalTraining(record, repetition)


def read_trainings(folder: StudyFolder, trials: Sequence[TrialRecord]) -> list[FinalTraining]:
    """Read every training of a finalist that has begun, by trial and repetition.

    Args:
        folder: The study's folder.
        trials: The study's trials.
    """
    known = {trial.number: trial for trial in trials}
    paths = folder.finalists_dir.iterdir() if folder.finalists_dir.is_dir() else ()
    found = [(int(name[1]), int(name[2])) for path in paths if (name := _FOLDER.fullmatch(path.name))]
    read = [read_training(folder, known[trial], seed) for trial, seed in sorted(found) if trial in known]
    return [training for training in read if training.record.started_at is not None]


def summarise_finalists(
    trainings: Sequence[FinalTraining], objectives: Sequence[Objective], floor: Floor | None = None
) -> list[Finalist]:
    """Return mean and spread of each finalist, and which are on the front of the means.

    Args:
        trainings: By trial and repetition; those that have not finished do not count.
        objectives: What the study trades; validation decides, the test split is only reported.
        floor: The least accuracy of a network on the front, which the mean has to reach; None: there is none.

    Returns:
        Finalists with at least one finished training, by macs; `record.is_front` is of the final front.
    """
    finished = [training for training in trainings if training.record.state == "COMPLETE"]
    finalists = []
    for _, group in groupby(finished, key=lambda training: training.record.number):
        some = list(group)
        results = [training.record.metrics for training in some]
        names = sorted(set.intersection(*(set(result) for result in results)))
        values = {name: np.array([result[name] for result in results]) for name in names}
        means = {name: float(column.mean()) for name, column in values.items()}
        spread = {name: float(column.std(ddof=1)) for name, column in values.items() if len(column) > 1}
        record = replace(
            some[0].record,
            metrics=means,
            curve=(),
            times=(),
            is_front=False,
            is_acceptable=floor is None or floor.allows(means),
        )
        finalists.append(Finalist(record, spread, len(some), _find_best(some, objectives)))
    marked = mark_front([finalist.record for finalist in finalists], objectives)
    final = [replace(finalist, record=record) for finalist, record in zip(finalists, marked, strict=True)]
    return sorted(final, key=lambda finalist: (finalist.record.metrics["macs"], finalist.record.number))


def _find_best(trainings: Sequence[FinalTraining], objectives: Sequence[Objective]) -> int:
    """Return the repetition that is best in the first objective of validation; of equals the first one."""
    judged = find_judged(objectives)
    if judged is None:  # costs alone, in which all are equal
        return trainings[0].repetition
    values = [training.record.metrics[judged.metric] for training in trainings]
    best = max(values) if judged.is_maximized else min(values)
    return trainings[values.index(best)].repetition


def read_finalists(
    folder: StudyFolder,
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    floor: Floor | None = None,
) -> list[Finalist]:
    """Return the finalists of a study from what lies in its folder; see `summarise_finalists`."""
    return summarise_finalists(read_trainings(folder, trials), objectives, floor)


def find_deployed(folder: StudyFolder, number: int, objectives: Sequence[Objective]) -> int | None:
    """Return the repetition of a finalist whose network is the one to deploy; None: no training has finished.

    The finalist's own events say it; what the study's storage knows of its trial is not needed.

    Args:
        folder: The study's folder.
        number: The finalist's trial.
        objectives: What the study trades.
    """
    trial = TrialRecord(number, "COMPLETE", source="", architecture={}, method="")
    trainings = read_trainings(folder, [trial])
    finished = [training for training in trainings if training.record.state == "COMPLETE"]
    return _find_best(finished, objectives) if finished else None


def write_finalists(path: Path, finalists: Sequence[Finalist]) -> None:
    """Write the finalists by macs: each metric's mean by its name, its spread by `<name>_std`.

    Columns before them: trial, source, is_front (1 on the final front), n_seeds, model (of the best seed by
    validation, below the study's folder), method, architecture, options. Behind them what `dirprune latency`
    measured, once it has; see `dirprune.records.tables`.
    """
    metrics = sorted({name for finalist in finalists for name in finalist.record.metrics})
    columns = [column for name in metrics for column in (name, f"{name}_std")]
    facts = ["trial", "source", "is_front", "n_seeds", "model", "method", "architecture", "options"]
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*facts, *columns], restval="", lineterminator="\n")
        table.writeheader()
        for finalist in finalists:
            record = finalist.record
            row = {
                "trial": record.number,
                "source": record.source,
                "is_front": int(record.is_front),
                "n_seeds": finalist.n_seeds,
                "model": finalist.model_dir(StudyFolder(Path())).as_posix(),
                "method": record.method,
                "architecture": format_architecture(record),
                "options": json.dumps(record.options, sort_keys=True, default=str),
            }
            spread = {f"{name}_std": value for name, value in finalist.spread.items()}
            table.writerow({**row, **record.metrics, **spread})
