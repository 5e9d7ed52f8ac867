"""What the commands print: aligned tables, and one line of progress at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import click

from dirprune.training import TrainingReport


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

    def show(self, report: TrainingReport) -> None:
        """Print one report: epoch, training loss, validation metrics, images per second, time left."""
        now = self.clock() - self.started
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
        elif report.images:
            parts.append(f"{format_duration(now * (self.n_images / report.images - 1))} left at most")
        click.echo("  ".join(parts))
