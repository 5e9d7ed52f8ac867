"""The study as one page that works offline: everything that it needs is inside the file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dirprune.files import write_atomically
from dirprune.page import make_single_page
from dirprune.records.appearance import COLOURS, LABELS
from dirprune.records.finalists import Finalist
from dirprune.records.hypervolume import trace_hypervolume
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary

_STATES = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running"}
_FIELDS = ("number", "source", "method", "state", "images", "isAcceptable", "error")
"""What `page/stored.js` is told of each trial, beside metrics and kept channels."""


def write_front_html(
    path: Path,
    summary: StudySummary,
    records: Sequence[TrialRecord],
    title: str = "Pareto front",
    finalists: Sequence[Finalist] = (),
) -> None:
    """Write the page of a study: front, table, each trial's network, growth of the hypervolume.

    Where there are finalists, theirs is the front, with bars of one standard deviation over the seeds; that
    of the search is faded behind it.

    Args:
        path: File to write.
        summary: The study.
        records: Every trial.
        title: Shown as text, whatever it holds.
        finalists: By macs, the final front marked.
    """
    page = make_single_page(title, {"labels": LABELS, "colours": COLOURS}, _tell(summary, records, finalists))
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _tell(
    summary: StudySummary, records: Sequence[TrialRecord], finalists: Sequence[Finalist]
) -> dict[str, object]:
    """Return what the page is told: names of metrics and groups once, then a row of values per trial."""
    begun = [record for record in records if record.state in _STATES]
    metrics = sorted({name for record in begun for name in record.metrics})
    groups = list(summary.n_channels)
    return {
        "study": {
            "id": summary.study_id,
            "name": summary.name,
            "folder": str(summary.folder.root.absolute()),
            "network": summary.description.get("network"),
            "objectives": [
                {"metric": o.metric, "isMaximized": o.is_maximized, "margin": o.margin}
                for o in summary.objectives
            ],
            "finalists": [_tell_finalist(finalist) for finalist in finalists],
            "whole": dict(summary.n_channels),
        },
        "as_of": _describe_state(begun),
        "fields": _FIELDS,
        "metrics": metrics,
        "groups": groups,
        "trials": [_tell_trial(record, metrics, groups) for record in begun],
        "hypervolume": _tell_growth(summary, begun),
    }


def _tell_trial(record: TrialRecord, metrics: Sequence[str], groups: Sequence[str]) -> list[list[object]]:
    facts: list[object] = [
        record.number,
        record.source,
        record.method,
        "paused" if record.is_paused else _STATES[record.state],
        record.last_images,
        record.is_acceptable,
        record.reason or "",
    ]
    known = _choose_finite(record.metrics)
    return [
        facts,
        [known.get(name) for name in metrics],
        [record.architecture.get(group) for group in groups],
    ]


def _tell_finalist(finalist: Finalist) -> dict[str, object]:
    return {
        "number": finalist.record.number,
        "nSeeds": finalist.n_seeds,
        "isAcceptable": finalist.record.is_acceptable,
        "metrics": _choose_finite(finalist.record.metrics),
        "spread": _choose_finite(finalist.spread),
    }


def _tell_growth(summary: StudySummary, records: Sequence[TrialRecord]) -> list[tuple[int, float, float]]:
    """Return [finished trials, hypervolume, s since the first trial began] where it grew, and at the end."""
    steps = trace_hypervolume(records, summary.objectives, summary.reference_point, summary.dense_costs)
    starts = [record.started_at for record in records if record.started_at is not None]
    begin = min([*starts, *(step.record.last_time for step in steps)], default=0.0)
    points = [(step.n_complete, step.hypervolume, round(step.record.last_time - begin, 3)) for step in steps]
    earlier = [(0, 0.0, 0.0), *points]
    return [
        now for now, before in zip(points, earlier, strict=False) if now[1] > before[1] or now == points[-1]
    ]


def _describe_state(records: Sequence[TrialRecord]) -> str:
    """Return how many trials are in which state, and when the last one told of itself."""
    counts = Counter("paused" if record.is_paused else _STATES[record.state] for record in records)
    parts = [f"{counts[state]} {state}" for state in (*_STATES.values(), "paused") if counts[state]]
    last = max((record.last_time for record in records), default=0.0)
    when = f"as of {datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC: " if last else ""
    return when + (", ".join(parts) or "no trial has begun")


def _choose_finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that JSON can say."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
