"""A study brought to MLflow from its own records: after the fact, and to any server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from dirprune.addresses import describe_address
from dirprune.errors import TrackingError, one_line
from dirprune.records.ending import read_ending
from dirprune.records.finalists import read_trainings, summarise_finalists
from dirprune.records.front import sort_front
from dirprune.records.hypervolume import trace_hypervolume
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking.store import RunKey
from dirprune.tracking.uploader import Uploader
from dirprune.tracking.views import Point, count_states, view_counts, view_finalists, view_progress

PAUSES_S = (1.0, 2.0, 4.0)

Found = TypeVar("Found")


@dataclass(frozen=True)
class Synced:
    """What a synchronisation found and left.

    Attributes:
        n_trials: Trials that are in MLflow now.
        n_models: Models of the front that are in MLflow now.
        refused: What cannot be uploaded, in words; empty if all is there.
    """

    n_trials: int
    n_models: int
    refused: tuple[str, ...]


def sync_study(
    summary: StudySummary,
    records: Sequence[TrialRecord],
    tracking_uri: str,
    network: Callable[[], nn.Module] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Synced:
    """Rebuild or complete a study in MLflow. Where all is there already, nothing changes.

    Nobody may drive the study meanwhile: the caller holds its lock.

    Args:
        summary: The study.
        records: Every trial that was started, with `is_front` set.
        tracking_uri: Where; `check_server` has found it usable.
        network: Function that makes the network before pruning, if it is a user's own.
        progress: Takes what is uploaded, how much of it is done, and its total.

    Raises:
        TrackingError: If another study of the name has other objectives there, or MLflow keeps failing.
        StudyError: If the note of how the study ended is damaged.
    """
    failure = read_ending(summary.folder)
    has_failed = None if failure is None else bool(failure)
    uploader = Uploader(summary, tracking_uri, network)
    start_ms = _to_ms(min((r.started_at for r in records if r.started_at is not None), default=None))

    def insist(send: Callable[[], Found]) -> Found:
        """Try a few times: a run that an unanswered request has created is found by `connect`."""
        for pause_s in (*PAUSES_S, None):
            try:
                uploader.connect(start_ms)
                return send()
            except TrackingError:
                raise
            except Exception as error:  # whatever MLflow, its databases and sockets raise
                if pause_s is None:
                    said = one_line(error, has_type=True, address=tracking_uri)
                    raise TrackingError(
                        f"MLflow at {describe_address(tracking_uri)} failed: {said}; "
                        "the same command goes on where this one ended"
                    ) from error
                time.sleep(pause_s)
        raise AssertionError("a last attempt either returns or raises")

    trainings = read_trainings(summary.folder, records)
    finalists = summarise_finalists(trainings, summary.objectives, summary.floor)
    deployed = {(f.record.number, f.best) for f in finalists if f.record.is_front}
    runs: list[tuple[RunKey, TrialRecord]] = [(record.number, record) for record in records]
    for training in trainings:
        key = (training.record.number, training.repetition)
        runs.append((key, training.record.on_front(key in deployed)))
    for place, (run, record) in enumerate(runs, 1):
        insist(lambda run=run, record=record: uploader.upload(run, record))  # type: ignore[misc]
        if progress is not None:
            progress("runs", place, len(runs))
    front: list[RunKey] = [*(record.number for record in sort_front(records)), *sorted(deployed)]
    is_open = any(record.state == "RUNNING" for _, record in runs)
    end_ms = _to_ms(max((record.last_time for _, record in runs), default=time.time()))
    last = max((record.last_time for _, record in runs), default=0.0)
    history = tell_history(summary, records)
    if trainings:
        history += view_finalists(finalists, round(1000 * last))
    insist(lambda: uploader.complete(history, front, start_ms, end_ms, is_open, has_failed))
    return Synced(len(records), uploader.n_models, tuple(uploader.refused))


def tell_history(summary: StudySummary, records: Sequence[TrialRecord]) -> list[Point]:
    """Return what a study's run would hold had it been told of each finished trial in its turn.

    Args:
        summary: The study.
        records: Every trial that was started.
    """
    points: list[Point] = []
    steps = trace_hypervolume(records, summary.objectives, summary.reference_point, summary.dense_costs)
    for step in steps:
        counted = {"COMPLETE": step.n_complete}
        told = view_progress(step.hypervolume, step.front_size, counted, round(1000 * step.record.last_time))
        points += [point for point in told if point.name in ("hypervolume", "front_size", "n_complete")]
    last = max((record.last_time for record in records), default=0.0)
    counts = view_counts(count_states(records), round(1000 * last))
    return points + [point for point in counts if point.name != "n_complete" or not steps]


def _to_ms(time_s: float | None) -> int | None:
    return None if time_s is None else round(1000 * time_s)
