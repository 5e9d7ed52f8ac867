"""What a picture of a study shows, before any plotting library draws it: axes, points, colours and steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dirprune.records.appearance import COLOURS, DENSE_COLOUR, label_of
from dirprune.records.finalists import Finalist
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective

Scale = Literal["linear", "log", "log-error"]
Role = Literal["front", "dominated", "stopped", "searched", "finalist", "final"]
"""Of trials: on the front; "searched" is the same where finalists stand before it. "final" is a finalist on
the final front, "finalist" one that is not."""


@dataclass(frozen=True)
class Axis:
    """One axis of a picture.

    Attributes:
        metric: What it shows; None = the number of the trial.
        label: Its title.
        scale: "log-error" places an accuracy by its distance to 1 on a logarithmic scale, best end up, so
            that 0.98 and 0.99 lie as far apart as 0.8 and 0.9.
        floor: The smallest error that "log-error" places; an accuracy of 1 lies there.
    """

    metric: str | None
    label: str
    scale: Scale = "linear"
    floor: float = 0.0

    def value(self, record: TrialRecord) -> float:
        """Return what the record has on this axis; nan if it has nothing."""
        return float(record.number if self.metric is None else record.metrics.get(self.metric, math.nan))

    def place(self, value: float) -> float:
        """Return the coordinate of a value: the error for "log-error", otherwise the value itself."""
        return max(1.0 - value, self.floor) if self.scale == "log-error" else value

    def bar(self, value: float, spread: float) -> tuple[float, float]:
        """Return how far a bar from `value - spread` to `value + spread` reaches in coordinates: down, up."""
        middle = self.place(value)
        ends = sorted((self.place(value - spread), self.place(value + spread)))
        lowest = middle / 100 if self.scale == "log" else -math.inf  # a logarithm has no place at 0
        return middle - max(ends[0], lowest), ends[1] - middle

    def ticks(self, values: Sequence[float]) -> dict[float, str]:
        """Return the text at each coordinate to mark on a "log-error" axis, for values that it shows."""
        errors = [self.place(value) for value in values]
        marks = [digit / 10**power for power in range(7) for digit in (5, 2, 1)]
        low, high = min(errors, default=1e-3), max(errors, default=1.0)
        texts = {error: f"{1 - error:.6g}" for error in marks if low / 2.5 <= error <= min(high * 2.5, 0.9)}
        if self.floor not in errors:
            return texts
        away = {error: text for error, text in texts.items() if error > 1.3 * self.floor}
        return {**away, self.floor: "1"}


@dataclass(frozen=True)
class Point:
    """One trial in a picture, at (x, y) in the coordinates of the axes.

    Attributes:
        record: The trial; of a finalist with the means over its seeds.
        finalist: What more is known of a finalist; None of any other.
        x_bar, y_bar: How far the spread of a finalist reaches: towards lower and towards higher coordinates.
    """

    record: TrialRecord
    role: Role
    x: float
    y: float
    finalist: Finalist | None = None
    x_bar: tuple[float, float] = (0.0, 0.0)
    y_bar: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """Everything that a picture of a study's trials shows.

    Attributes:
        across, up: The axes.
        colour: Metric shown as colour where there are three objectives or more; None = colour by category.
        points: Trials to draw, those of the front last, then finalists.
        line: Coordinates of the step line, in order; empty = none. Of the final front where there is one.
        searched_line: That of the search's front where finalists stand before it.
        is_held: Whether a step holds its height to the next point (True) or takes the next point's at once.
        category: "method" or "source", whichever tells the trials apart.
        colours: Colour per category, the dense network's last.
    """

    across: Axis
    up: Axis
    colour: Objective | None
    points: tuple[Point, ...]
    line: tuple[tuple[float, float], ...]
    is_held: bool
    category: Literal["method", "source"]
    colours: Mapping[str, str]
    searched_line: tuple[tuple[float, float], ...] = ()

    def reach(self, axis: Axis) -> list[float]:
        """Return all coordinates that must be visible on one of the two axes, ends of bars among them."""
        spans = [(p.y, p.y_bar) if axis == self.up else (p.x, p.x_bar) for p in self.points]
        return [end for place, (down, up) in spans for end in (place - down, place + up)]

    def category_of(self, record: TrialRecord) -> str:
        """Return the category by which the record is coloured; the dense network is one of its own."""
        return _categorise(record, self.category)

    def named_colours(self) -> dict[str, str]:
        """Return the colours to explain: of what is drawn, and not of the dense network beside methods."""
        drawn = {self.category_of(point.record) for point in self.points}
        if self.category == "method":
            drawn.discard("dense")  # a source, with a symbol of its own
        return {name: colour for name, colour in self.colours.items() if name in drawn}

    def colour_limits(self) -> tuple[float, float]:
        """Return the range of the colour scale: that of finished trials, not of stopped ones."""
        assert self.colour is not None
        finished = [point.record for point in self.points if point.role != "stopped"]
        values = [record.metrics.get(self.colour.metric, math.nan) for record in finished]
        finite = [value for value in values if math.isfinite(value)]
        return (min(finite), max(finite)) if finite else (0.0, 1.0)


def make_scene(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], finalists: Sequence[Finalist] = ()
) -> Scene:
    """Decide what a picture of the trials, and of finalists where there are any, shows.

    One objective gives a strip over the number of the trial with the best so far as a line; two give the
    front as a line; of more, the first two are on the axes and the third is the colour.
    """
    searched = [record for record in records if record.state == "COMPLETE" or record.is_halted]
    shown = [*searched, *(finalist.record for finalist in finalists)]
    up = _make_axis(objectives[0], shown)
    across = _make_axis(objectives[1], shown) if len(objectives) > 1 else Axis(None, "trial")
    points = []
    for record in sorted(searched, key=lambda record: (record.is_front, record.number)):
        x, y = across.place(across.value(record)), up.place(up.value(record))
        if math.isfinite(x) and math.isfinite(y):
            role: Role = "front" if record.is_front else "dominated"
            points.append(Point(record, "stopped" if record.is_halted else role, x, y))
    line = _make_line(points, objectives, up)
    searched_line: tuple[tuple[float, float], ...] = ()
    if finalists:
        points = [replace(p, role="searched") if p.role == "front" else p for p in points]
        final = [_place_finalist(finalist, across, up) for finalist in finalists]
        points += sorted(final, key=lambda point: point.role == "final")
        if len(objectives) == 2:
            on_front = sorted((point.x, point.y) for point in final if point.role == "final")
            line, searched_line = tuple(on_front), line
    methods = sorted({point.record.method for point in points if point.record.source != "dense"})
    category: Literal["method", "source"] = "method" if len(methods) > 1 else "source"
    names = sorted({_categorise(point.record, category) for point in points} - {"dense"})
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    return Scene(
        across=across,
        up=up,
        colour=objectives[2] if len(objectives) > 2 else None,
        points=tuple(points),
        line=line,
        is_held=len(objectives) < 2 or not objectives[1].is_maximized,
        category=category,
        colours={**colours, "dense": DENSE_COLOUR},
        searched_line=searched_line,
    )


def _place_finalist(finalist: Finalist, across: Axis, up: Axis) -> Point:
    record = finalist.record
    x, y = across.value(record), up.value(record)
    spreads = [finalist.spread.get(axis.metric or "", 0.0) for axis in (across, up)]
    return Point(
        record,
        "final" if record.is_front else "finalist",
        across.place(x),
        up.place(y),
        finalist,
        across.bar(x, spreads[0]),
        up.bar(y, spreads[1]),
    )


def _categorise(record: TrialRecord, category: Literal["method", "source"]) -> str:
    return record.method if category == "method" and record.source != "dense" else record.source


def _make_axis(objective: Objective, records: Sequence[TrialRecord]) -> Axis:
    metric = objective.metric
    values = [record.metrics.get(metric, math.nan) for record in records]
    finite = sorted(value for value in values if math.isfinite(value))
    label = label_of(metric)
    if not finite:
        return Axis(metric, label)
    if metric.endswith("accuracy") and objective.is_maximized and 0.9 < finite[-1] <= 1 and finite[0] >= 0:
        errors = [1 - value for value in finite if value < 1]
        return Axis(
            metric, f"{label} (log scale of the error)", "log-error", floor=min(errors, default=0.01) / 2
        )
    if finite[0] > 0 and finite[-1] / finite[0] >= 10:
        return Axis(metric, label, "log")
    return Axis(metric, label)


def _make_line(
    points: Sequence[Point], objectives: Sequence[Objective], up: Axis
) -> tuple[tuple[float, float], ...]:
    if len(objectives) == 2:
        return tuple(sorted((point.x, point.y) for point in points if point.role == "front"))
    if len(objectives) > 2:
        return ()
    best: list[tuple[float, float]] = []
    better = max if objectives[0].is_maximized != (up.scale == "log-error") else min
    for point in sorted(points, key=lambda point: point.x):
        if point.record.is_candidate:
            best.append((point.x, better(point.y, best[-1][1]) if best else point.y))
    return tuple(best)
