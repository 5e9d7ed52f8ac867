"""What MLflow should hold of a trial or a study; pure, so that it can be compared with what it holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dirprune.cost import COST_METRICS
from dirprune.records.finalists import Finalist, FinalTraining
from dirprune.records.record import TrialRecord
from dirprune.records.tables import format_architecture
from dirprune.study.observer import StudySummary
from dirprune.tracking import names

Status = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]
_STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step, with the time in ms at which it was reported."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class RunView:
    """What a run should hold.

    Attributes:
        name: The run's name for people.
        status: By MLflow's names.
        tags, parameters: Text per name, within MLflow's limits.
        points: Values of metrics.
        start_ms, end_ms: Unix times in ms; None = now.
    """

    name: str
    status: Status
    tags: dict[str, str]
    parameters: dict[str, str]
    points: tuple[Point, ...]
    start_ms: int | None = None
    end_ms: int | None = None


def view_trial(record: TrialRecord, study_name: str, study_id: str) -> RunView:
    """Return what the run of a trial should hold; the same record always gives the same."""
    tags = {
        names.KIND: "trial",
        names.STUDY: study_name,
        names.STUDY_ID: study_id,
        names.TRIAL: str(record.number),
        names.SOURCE: record.source,
        names.METHOD: record.method,
        names.FRONT: "true" if record.is_front else "false",
        names.PAUSED: "true" if record.is_paused else "false",
    }
    if not record.is_acceptable:
        tags[names.NOT_ACCEPTABLE] = record.reason or "unknown"
    if record.state == "PRUNED":
        tags[names.STOPPED_AT] = str(record.last_images)
    if record.state == "FAIL":
        tags[names.ERROR] = record.reason or "unknown"
    parameters = {
        "source": record.source,
        "method": record.method,
        "architecture": format_architecture(record),
        **{f"channels.{group}": str(kept) for group, kept in record.architecture.items()},
    }
    parameters = {**{name: _text(value) for name, value in record.options.items()}, **parameters}
    times = [round(time * 1000) for time in record.times]
    start = None if record.started_at is None else round(record.started_at * 1000)
    return RunView(
        name=f"trial {record.number} of {study_name}",
        status="KILLED" if record.is_abandoned else _STATUS.get(record.state, "RUNNING"),
        tags=_limit(tags, names.MAX_TAG),
        parameters=_limit(parameters, names.MAX_PARAMETER),
        points=_trial_points(record, times, start or 0),
        start_ms=start,
        end_ms=times[-1] if times and record.state in _STATUS else None,
    )


def view_training(training: FinalTraining, is_deployed: bool, study_name: str, study_id: str) -> RunView:
    """Return what the run of a finalist's training should hold.

    Args:
        training: What it said.
        is_deployed: Whether its model is that of a point of the final front.
    """
    view = view_trial(training.record.on_front(is_deployed), study_name, study_id)
    tags = {names.KIND: "finalist", names.STAGE: names.FINAL, names.REPETITION: str(training.repetition)}
    name = f"finalist {training.record.number}, seed {training.repetition} of {study_name}"
    return replace(view, name=name, tags={**view.tags, **tags})


def view_finalists(finalists: Sequence[Finalist], time_ms: int) -> list[Point]:
    """Return the points of a study's run that tell of its finalists: means, spreads, size of their front."""
    points = []
    for finalist in finalists:
        values = {**finalist.record.metrics, **{f"{n}_std": s for n, s in finalist.spread.items()}}
        points += [
            Point(
                names.clean_name(f"{names.FINAL}.{finalist.record.number}.{name}"),
                float(value),
                finalist.n_seeds,
                time_ms,
            )
            for name, value in values.items()
        ]
    size = float(sum(finalist.record.is_front for finalist in finalists))
    n_trainings = sum(finalist.n_seeds for finalist in finalists)
    return [*points, Point("final_front_size", size, n_trainings, time_ms)]


def view_study(
    summary: StudySummary, status: Status, points: Sequence[Point], is_paused: bool = False
) -> RunView:
    """Return what the run of a study should hold.

    Args:
        summary: The study.
        status: By MLflow's names.
        points: Values of metrics.
        is_paused: Whether nobody drives it, and something is left for a driver that continues it.
    """
    tags = {
        names.KIND: "study",
        names.STUDY: summary.name,
        names.STUDY_ID: summary.study_id,
        names.N_TRIALS: str(summary.n_trials),
        names.FOLDER: str(summary.folder.root.absolute()),
        names.PAUSED: "true" if is_paused else "false",
    }
    parameters = {
        **{name: _text(value) for name, value in summary.description.items()},
        "seed": str(summary.seed),
        "objectives": ", ".join(map(str, summary.objectives)),
        **{f"margin.{o.metric}": str(o.margin) for o in summary.objectives if o.margin},
        **{f"reference.{name}": _text(value) for name, value in summary.reference_point.items()},
        **{f"dense.{name}": _text(value) for name, value in summary.dense_costs.items()},
    }
    limited = _limit(parameters, names.MAX_PARAMETER)
    return RunView(summary.name, status, _limit(tags, names.MAX_TAG), limited, tuple(points))


def view_progress(
    hypervolume: float, front_size: int, counts: Mapping[str, int], time_ms: int
) -> list[Point]:
    """Return the points of a study's run after another finished trial."""
    step = counts.get("COMPLETE", 0)
    values = {"hypervolume": hypervolume, "front_size": float(front_size)}
    return [
        *(Point(name, value, step, time_ms) for name, value in values.items()),
        *view_counts(counts, time_ms),
    ]


def count_states(records: Iterable[TrialRecord]) -> dict[str, int]:
    """Return the number of trials by state; paused ones are PAUSED and do not count as RUNNING."""
    return dict(Counter(record.counted_state for record in records))


def view_counts(counts: Mapping[str, int], time_ms: int) -> list[Point]:
    """Return the number of trials by state, 0 included, at the number of finished ones."""
    rare = "INFEASIBLE"  # such a trial is never started, so that only a driver counts it
    shown = {state: name for state, name in names.COUNTS.items() if state in counts or state != rare}
    step = counts.get("COMPLETE", 0)
    return [Point(name, float(counts.get(state, 0)), step, time_ms) for state, name in shown.items()]


def _trial_points(record: TrialRecord, times: Sequence[int], start: int) -> tuple[Point, ...]:
    """Return costs at step 0, the curve, and in the end what is known last, just after the last report."""
    points = [Point(name, record.metrics[name], 0, start) for name in COST_METRICS if name in record.metrics]
    latest = {name: record.metrics[name] for name in COST_METRICS if name in record.metrics}
    for place, (images, metrics) in enumerate(record.curve):
        time_ms = times[place] if place < len(times) else start
        for name, value in metrics.items():
            if name not in COST_METRICS:
                points.append(Point(name, value, images, time_ms))
                latest[name] = value
    if record.state in _STATUS:
        after = (times[-1] if times else start) + 1
        points += [
            Point(name, value, record.last_images, after)
            for name, value in record.metrics.items()
            if latest.get(name) != value
        ]
    return tuple(Point(names.clean_name(p.name), float(p.value), p.step, p.time_ms) for p in points)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _limit(texts: Mapping[str, str], limit: int) -> dict[str, str]:
    return {names.clean_name(name): names.cut(text, limit) for name, text in texts.items()}
