"""What a study shows while it works: one line of progress, rewritten on a terminal, repeated elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from dirprune.cli.printing import format_duration
from dirprune.records.finalists import Finalist, FinalTraining
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver, StudySummary
from dirprune.tuning.finalists import FinalistOptions

SECONDS_BETWEEN_LINES = 5.0  # where lines cannot be rewritten


class StudyProgress(StudyObserver):
    """Print trials by state, size and hypervolume of the front, and the time left; then finalists likewise.

    Args:
        stream: Where to print.
        clock: Returns seconds.
        time_limit_s: Seconds from now at which the study ends, whatever is left of it; None: never.
        finalists: How many members of the front are trained again, and in how many seeds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        time_limit_s: float | None = None,
        finalists: FinalistOptions | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.clock = clock
        self.is_terminal = self.stream.isatty()
        self.states: dict[int, str] = {}
        self.n_before = 0
        self.n_trials = 0
        self.n_front: int | None = 0
        self.n_choosable = 0
        self.hypervolume = 0.0
        self.began = self.printed = clock()
        self.ends = math.inf if time_limit_s is None else self.began + time_limit_s
        self.finalists = finalists
        self.trainings: dict[tuple[int, int], FinalTraining] = {}

    def study_started(self, summary: StudySummary) -> None:
        """Begin to count."""
        self.n_trials = summary.n_trials
        self.began = self.clock()
        self.n_front = None if summary.resumed else 0  # told after the earlier trials

    def trial_changed(self, record: TrialRecord) -> None:
        """Count a trial by its state."""
        is_known = record.number in self.states
        state = self.states[record.number] = record.counted_state
        if not is_known and state != "RUNNING":
            self.n_before += 1  # of an earlier run
            return
        self._show(self.line(), is_due=False)

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Take the front's size and hypervolume."""
        self.n_front, self.hypervolume = len(front), hypervolume
        self.n_choosable = sum(record.source != "dense" for record in front)  # see `choose_finalists`
        self._show(self.line(), is_due=False)

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Leave the last line standing, and begin to count finalists."""
        self._leave(self.line())
        self.n_before, self.began = 0, self.clock()

    def finalist_changed(self, training: FinalTraining) -> None:
        """Count a finalist's training by its state."""
        if self.finalists is None:
            return
        key = training.record.number, training.repetition
        is_known = key in self.trainings
        self.trainings[key] = training
        if not is_known and training.record.state != "RUNNING":
            self.n_before += 1  # of an earlier run
        self._show(self.finalist_line(), is_due=False)

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Leave the last line standing."""
        if self.trainings:
            self._leave(self.finalist_line())

    def finalist_line(self) -> str:
        """Return the line of progress of finalists."""
        assert self.finalists is not None
        running = [one for one in self.trainings.values() if one.record.state == "RUNNING"]
        n_ended = len(self.trainings) - len(running)
        n_total = min(self.finalists.n_finalists, self.n_choosable) * self.finalists.n_seeds
        line = f"finalists {n_ended}/{n_total} trained, {len(running)} running"
        return line + self._tell_time(n_ended, max(n_total, len(self.trainings)))

    def line(self) -> str:
        """Return the line of progress."""
        count = list(self.states.values()).count
        n_ended = len(self.states) - count("RUNNING")
        parts = [f"{count('COMPLETE')} done", f"{count('RUNNING')} running", f"{count('PRUNED')} stopped"]
        for state, what in (("PAUSED", "paused"), ("FAIL", "failed")):
            if count(state):
                parts.append(f"{count(state)} {what}")
        line = f"trials {n_ended}/{self.n_trials}: {', '.join(parts)}"
        if self.n_front is not None:
            line += f" | front {self.n_front}, hypervolume {self.hypervolume:.4f}"
        return line + self._tell_time(n_ended, self.n_trials)

    def _tell_time(self, n_ended: int, n_total: int) -> str:
        """Return how long it has taken, and about how long it takes still."""
        now = self.clock()
        elapsed = now - self.began
        told = f" | {format_duration(elapsed)}"
        n_here = n_ended - self.n_before
        if n_here > 0 and n_ended < n_total:
            left = min(elapsed / n_here * (n_total - n_ended), max(0.0, self.ends - now))
            told += f", about {format_duration(left)} left"
        return told

    def _leave(self, line: str) -> None:
        self._show(line, is_due=True)
        if self.is_terminal:
            self.stream.write("\n")
            self.stream.flush()

    def _show(self, line: str, *, is_due: bool) -> None:
        now = self.clock()
        if self.is_terminal:
            self.stream.write(f"\r\x1b[2K{line}")
        elif is_due or now - self.printed >= SECONDS_BETWEEN_LINES:
            self.stream.write(line + "\n")
            self.printed = now
        self.stream.flush()
