"""What a study shows while it works: one line of progress, rewritten on a terminal, repeated elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from dirprune.cli.printing import format_duration
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver, StudySummary

SECONDS_BETWEEN_LINES = 5.0  # where lines cannot be rewritten


class StudyProgress(StudyObserver):
    """Print trials by state, size and hypervolume of the front, and the time left.

    Args:
        stream: Where to print.
        clock: Returns seconds.
        time_limit_s: Seconds from now at which the study ends, whatever is left of it; None: never.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        time_limit_s: float | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.clock = clock
        self.is_terminal = self.stream.isatty()
        self.states: dict[int, str] = {}
        self.n_before = 0
        self.n_trials = 0
        self.n_front, self.hypervolume = 0, 0.0
        self.began = self.printed = clock()
        self.ends = math.inf if time_limit_s is None else self.began + time_limit_s

    def study_started(self, summary: StudySummary) -> None:
        """Begin to count."""
        self.n_trials = summary.n_trials
        self.began = self.clock()

    def trial_changed(self, record: TrialRecord) -> None:
        """Count a trial by its state."""
        is_known = record.number in self.states
        state = self.states[record.number] = "PAUSED" if record.is_paused else record.state
        if not is_known and state != "RUNNING":
            self.n_before += 1  # of an earlier run
            return
        self._show(is_due=False)

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Take the front's size and hypervolume."""
        self.n_front, self.hypervolume = len(front), hypervolume
        self._show(is_due=False)

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Leave the last line standing."""
        self._show(is_due=True)
        if self.is_terminal:
            self.stream.write("\n")
            self.stream.flush()

    def line(self) -> str:
        """Return the line of progress."""
        count = list(self.states.values()).count
        n_ended = len(self.states) - count("RUNNING")
        parts = [f"{count('COMPLETE')} done", f"{count('RUNNING')} running", f"{count('PRUNED')} stopped"]
        for state, what in (("PAUSED", "paused"), ("FAIL", "failed")):
            if count(state):
                parts.append(f"{count(state)} {what}")
        now = self.clock()
        elapsed = now - self.began
        line = (
            f"trials {n_ended}/{self.n_trials}: {', '.join(parts)} | front {self.n_front}, "
            f"hypervolume {self.hypervolume:.4f} | {format_duration(elapsed)}"
        )
        n_here = n_ended - self.n_before
        if n_here > 0 and n_ended < self.n_trials:
            left = min(elapsed / n_here * (self.n_trials - n_ended), max(0.0, self.ends - now))
            line += f", about {format_duration(left)} left"
        return line

    def _show(self, *, is_due: bool) -> None:
        now = self.clock()
        if self.is_terminal:
            self.stream.write(f"\r\x1b[2K{self.line()}")
        elif is_due or now - self.printed >= SECONDS_BETWEEN_LINES:
            self.stream.write(self.line() + "\n")
            self.printed = now
        self.stream.flush()
