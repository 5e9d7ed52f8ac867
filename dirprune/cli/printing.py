"""What the commands print: aligned tables, and one line of progress at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

import click

from dirprune.importance.cache import ScoreCache
from dirprune.training import TrainingReport

ERASE = "\r\x1b[K"  # back to the beginning of the line, and delete it


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return lines with the first column flush left and the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )


def format_count(n: int, what: str) -> str:
    """Return so many of something in words: "1 network", "2 networks"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return a time as m:ss, or h:mm:ss from one hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TrainingProgress:
    """Prints where a training stands: at most one line per second, and always the last.

    Args:
        n_images: Training images to see in all, at most.
        n_epoch: Training images in one epoch.
        clock: Returns seconds.
        started: When the training began, by the clock; None: now.
    """

    def __init__(
        self,
        n_images: int,
        n_epoch: int,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
    ) -> None:
        self.n_images, self.n_epoch, self.clock = n_images, n_epoch, clock
        self.started = clock() if started is None else started
        self.printed = -1.0
        self.first: tuple[int, float] | None = None  # its images and time: not all is of this run

    def show(self, report: TrainingReport) -> None:
        """Print one report: epoch, training loss, validation metrics, images per second, time left."""
        now = self.clock() - self.started
        self.first = self.first or (report.images, now)
        if not report.is_last and self.printed >= 0 and now - self.printed < 1:
            return
        self.printed = now
        parts = [f"epoch {report.images / self.n_epoch:g}/{self.n_images / self.n_epoch:g}"]
        judged = [name for name in report.metrics if name.startswith("val_") and name != "val_loss"]
        for name in ("train_loss", *(judged or ["val_loss"])):
            if name in report.metrics:
                parts.append(f"{name.replace('_', ' ')} {report.metrics[name]:.4f}")
        if report.metrics.get("images_per_s"):
            parts.append(f"{report.metrics['images_per_s']:,.0f} images/s")
        if report.is_last:
            parts.append(f"done in {format_duration(now)}")
        elif rate := self._find_rate(report, now):
            parts.append(f"{format_duration((self.n_images - report.images) / rate)} left at most")
        click.echo("  ".join(parts))

    def _find_rate(self, report: TrainingReport, now: float) -> float:
        """Return images per second, judging included where two reports tell it; 0 where nothing does."""
        assert self.first is not None
        n_images, began = self.first
        if report.images > n_images and now > began:
            return (report.images - n_images) / (now - began)
        return report.metrics.get("images_per_s", 0.0)


@dataclass
class _Piece:
    """One piece of work: when it was first heard of, how much was done then, and how much is by now."""

    began: float
    n_before: int
    n_done: int
    n_total: int

    def format(self, what: str, now: float) -> str:
        text = f"{what} {self.n_done:,}/{self.n_total:,}"
        n_new = self.n_done - self.n_before
        if n_new <= 0 or self.n_done >= self.n_total:
            return text
        left = (now - self.began) / n_new * (self.n_total - self.n_done)
        return f"{text}, about {format_duration(left)} left of {format_duration(now - self.began + left)}"


class ScoringProgress:
    """Prints on stderr how far a long scoring, or other work, is and how long it will take.

    On a terminal this is one line, which is rewritten and gone at the end; elsewhere a line every ten
    seconds. What takes less time than that prints nothing. It is the `progress` of a `ScoringContext`, and
    must be used in a `with` block.

    Args:
        groups: Names of the channel groups in the order in which they are scored.
        clock: Returns seconds.
        stream: Where to print; stderr when None.
        title: What is done.
    """

    def __init__(
        self,
        groups: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
        title: str = "scoring",
    ) -> None:
        self.title = title
        self.labels = {name: f"{name} ({i} of {len(groups)})" for i, name in enumerate(groups, 1)}
        self.clock, self.stream = clock, stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self.interval = 0.5 if self.is_terminal else 10.0
        self.printed = clock()
        self.pieces: dict[str, _Piece] = {}
        self.has_line = False

    def __enter__(self) -> ScoringProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.has_line:
            self.stream.write(ERASE)
            self.stream.flush()

    def __call__(self, what: str, n_done: int, n_total: int) -> None:
        """Take a report and print, if it is time, all pieces of work that are under way."""
        now = self.clock()
        piece = self.pieces.get(what)
        if piece is None or n_total != piece.n_total or n_done < piece.n_done:
            piece = self.pieces[what] = _Piece(now, n_done, n_done, n_total)
        piece.n_done = n_done
        if now - self.printed >= self.interval:
            self.printed = now
            parts = [piece.format(self.labels.get(name, name), now) for name, piece in self.pieces.items()]
            line = f"{self.title}: " + "; ".join(parts)
            self.stream.write(f"{ERASE}{line}" if self.is_terminal else f"{line}\n")
            self.stream.flush()
            self.has_line = self.is_terminal
        if n_done >= n_total:
            del self.pieces[what]


@contextmanager
def kept_on_interrupt(
    cache: ScoreCache, pieces: Sequence[tuple[str, bool]], what: str = "scores of"
) -> Iterator[None]:
    """Say on Ctrl-C what of the work is kept, and whether the same command goes on from there.

    Args:
        cache: Where each piece is kept when it is whole; used for nothing else.
        pieces: In their order, the name of each, and whether it is kept in parts before.
        what: The pieces are.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(describe_kept(cache, pieces, what), err=True)
        raise


def describe_kept(cache: ScoreCache, pieces: Sequence[tuple[str, bool]], what: str) -> str:
    """Return what of some pieces of work is kept; see `kept_on_interrupt`."""
    names = [name for name, _ in pieces]
    whole, under_way = list(dict.fromkeys(names[: cache.n_found])), pieces[cache.n_found :]
    if under_way and under_way[0][1]:
        kept = "what was computed so far"
    elif whole:
        kept = f"the {what} {', '.join(whole)}"
    else:
        return f"nothing is kept: the {what} {names[0]} are not whole; the same command begins anew"
    return f"kept in {cache.folder}: {kept}; the same command goes on from there"


def print_registered(name: str, n_versions: int, missing: Sequence[str]) -> None:
    """Print what of a front is registered, and how to serve it."""
    click.echo(f"registered: {n_versions} versions of {name}; models:/{name}@smallest, @knee, @most-accurate")
    if missing:
        click.echo(f"not registered: {', '.join(missing)}")
