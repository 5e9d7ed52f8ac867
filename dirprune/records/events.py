"""What a trial said, line by line, and what follows from it.

`<study>/events/<trial>.jsonl` is append-only. Each line is one JSON object:

| key | meaning |
|---|---|
| schema | version of this format |
| attempt | id of the process that wrote it: a trial whose worker was lost goes on as a new attempt |
| event | started, scored, pruned, report, unreadable, finished, stopped, failed or preempted |
| time | unix time in s, by the clock of the machine that wrote it |
| the rest | the event's own fields, below |

| event | fields |
|---|---|
| started | resumed_from: training images of the checkpoint it goes on from, null = none; machine: its name |
| scored | method, cached, seconds |
| pruned | macs, parameters, kept |
| report | images, metrics |
| unreadable | images: those that cannot be read, each with its reason, which this worker has not named yet |
| finished | metrics (with test_*) |
| stopped | images |
| failed | reason |
| preempted | none: the worker was told to end, and left what it had for the next attempt |

A number that is not finite is written as a string ("nan", "inf", "-inf"), so that every line stays JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirprune.errors import StudyError

SCHEMA = 1
EVENTS = ("started", "scored", "pruned", "report", "unreadable", "finished", "stopped", "failed", "preempted")
ENDINGS = ("finished", "stopped", "failed")
_ENVELOPE = ("schema", "attempt", "event", "time")


@dataclass(frozen=True)
class TrialEvents:
    """What remains of a trial's events once late lines of lost attempts are refused.

    Attributes:
        attempt: Id of the newest attempt; None before the first one started.
        n_attempts: How many attempts started.
        curve: (training images seen, metrics) of each report that still counts, by images.
        times: Unix time in s of each report in `curve`.
        scored, pruned, finished, stopped, failed: Fields of the newest such event, or None. The last three
            are those of the newest attempt only.
        is_preempted: Whether the worker of the newest attempt was told to end, and nothing came after it.
        last_images: Training images of the last report, or those resumed from; 0 if there are none.
        started_at: Unix time in s at which the first attempt started; None before.
        wall_time_s: Time between first and last event, summed over attempts.
        unreadable: Images that it named as left out, in any attempt.
    """

    attempt: str | None = None
    n_attempts: int = 0
    curve: tuple[tuple[int, dict[str, float]], ...] = ()
    times: tuple[float, ...] = ()
    scored: dict[str, Any] | None = None
    pruned: dict[str, Any] | None = None
    finished: dict[str, Any] | None = None
    stopped: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    is_preempted: bool = False
    last_images: int = 0
    started_at: float | None = None
    wall_time_s: float = 0.0
    unreadable: tuple[str, ...] = ()


class EventLog:
    """Append one attempt's events to its trial's file.

    Each event is a single append of a whole line, synchronised to disk before `append` returns. Several
    attempts may write to the same file on one machine; `replay` decides whose lines count.

    Args:
        path: `<study>/events/<trial>.jsonl`; its folder is created with the first event.
        attempt: Id of this attempt, unlike that of any other attempt of the trial.
        appended: Called after each event.
    """

    def __init__(self, path: Path, attempt: str, appended: Callable[[], None] | None = None) -> None:
        if not attempt:
            raise StudyError("an attempt needs an id that is not empty, got ''; try uuid.uuid4().hex")
        self.path = path
        self.attempt = attempt
        self.appended = appended

    def append(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: One of `EVENTS`.
            fields: The event's own fields: plain data, numbers of numpy and torch included.
        Raises:
            StudyError: If the event is unknown or a field takes the name of the envelope's.
            OSError: If the line cannot be written whole.
        """
        if event not in EVENTS:
            raise StudyError(f"unknown event {event!r}; known: {', '.join(EVENTS)}")
        if taken := sorted(set(_ENVELOPE) & set(fields)):
            raise StudyError(f"fields of an event may not be called {', '.join(taken)}; choose another name")
        head = {"schema": SCHEMA, "attempt": self.attempt, "event": event, "time": time.time()}
        line = json.dumps(_plain({**head, **fields}), allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if _ends_torn(descriptor):
                line = b"\n" + line
            n_written = os.write(descriptor, line)
            if n_written != len(line):
                raise OSError(f"wrote {n_written} of {len(line)} bytes to {self.path}; is the disk full?")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self.appended is not None:
            self.appended()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of an events file in their order; [] if there is no file.

    Lines that are not whole (a write that was cut off) are left out: they were never acknowledged.

    Raises:
        StudyError: If a line was written by a newer version of the format.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):  # of which JSON and Unicode errors are kinds
            event = json.loads(line)
            if isinstance(event, dict) and all(key in event for key in _ENVELOPE):
                events.append(event)
    if unknown := [event["schema"] for event in events if event["schema"] != SCHEMA]:
        raise StudyError(
            f"{path}: expected events of schema {SCHEMA}, got {unknown[0]}; use the dirprune that wrote them"
        )
    return events


def replay(events: Iterable[Mapping[str, Any]]) -> TrialEvents:
    """Derive what a trial did from its events.

    The attempt that started last is the one that counts: whatever an older one writes after that start is
    refused, so that a lost worker that is still alive cannot change anything. An attempt that goes on from r
    training images takes the place of all earlier reports beyond r; one that starts from the beginning, of
    all of them. After its ending an attempt has nothing more to report.
    """
    state = _Replay()
    for event in events:
        state.take_(event)
    return state.result()


class _Replay:
    """The state of `replay` between two events."""

    def __init__(self) -> None:
        self.attempt: str | None = None
        self.spans: dict[str, tuple[float, float]] = {}  # first and last time of each started attempt
        self.points: dict[int, tuple[float, dict[str, float]]] = {}  # by training images
        self.last: dict[str, dict[str, Any] | None] = {}
        self.resumed_from = 0
        self.unreadable: dict[str, None] = {}

    def take_(self, event: Mapping[str, Any]) -> None:
        attempt, kind, now = event["attempt"], event["event"], float(event["time"])
        if kind == "started" and attempt not in self.spans:
            self._start_(attempt, now, event.get("resumed_from"))
            return
        if attempt != self.attempt or kind == "started":
            return
        has_ended = any(self.last.get(ending) is not None for ending in ENDINGS)
        if has_ended and kind not in ENDINGS:
            return
        self.spans[attempt] = (self.spans[attempt][0], max(now, self.spans[attempt][1]))
        fields = {key: value for key, value in event.items() if key not in _ENVELOPE}
        if "metrics" in fields:
            fields["metrics"] = {name: float(value) for name, value in fields["metrics"].items()}
        if kind == "unreadable":
            self.unreadable.update(dict.fromkeys(fields["images"]))
        elif kind == "report":
            self.points[int(fields["images"])] = (now, fields["metrics"])
        else:
            self.last[kind] = fields

    def _start_(self, attempt: str, now: float, resumed_from: int | None) -> None:
        self.attempt = attempt
        self.spans[attempt] = (now, now)
        self.last.update(dict.fromkeys((*ENDINGS, "preempted")))
        if resumed_from is None:
            self.last.clear()
            self.points.clear()
        self.resumed_from = resumed_from or 0
        self.points = {images: point for images, point in self.points.items() if images <= self.resumed_from}

    def result(self) -> TrialEvents:
        images = sorted(self.points)
        spans = list(self.spans.values())
        return TrialEvents(
            attempt=self.attempt,
            n_attempts=len(spans),
            curve=tuple((n, self.points[n][1]) for n in images),
            times=tuple(self.points[n][0] for n in images),
            **{kind: self.last.get(kind) for kind in ("scored", "pruned", *ENDINGS)},
            is_preempted=self.last.get("preempted") is not None,
            last_images=max([*images, self.resumed_from]),
            started_at=spans[0][0] if spans else None,
            wall_time_s=sum(last - first for first, last in spans),
            unreadable=tuple(self.unreadable),
        )


def _ends_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numbers of numpy and torch as Python's, nan and inf as strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return _plain(value.tolist())
    return value
