"""A study in MLflow while it runs: the driver leaves word and goes on, a thread of its own does the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from dirprune.records.finalists import Finalist, FinalTraining
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver, StudySummary
from dirprune.tracking.outage import Outage
from dirprune.tracking.store import RunKey
from dirprune.tracking.uploader import FILES_EVERY_S, Uploader
from dirprune.tracking.views import (
    Point,
    count_states,
    view_counts,
    view_finalists,
    view_progress,
)

logger = logging.getLogger("dirprune.tracking")

LONGEST_WAIT_S = 30.0
FAILURES_AT_CLOSE = 3


class MlflowTracker(StudyObserver):
    """Keep a study's run and its trials' runs in MLflow as the study goes.

    What the driver says is only noted; a thread brings MLflow to the newest state of each trial, so that many
    reports cost few requests. When that fails, it warns once, tries again later, and never fails the study:
    MLflow is a view of the study's own records, and the next `--resume` completes it.

    Args:
        tracking_uri: Where; None = a SQLite file beside the studies.
        network: Function that makes the network before pruning, if it is a user's own; front models need it.
        interval_s: Least time between two rounds of requests.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        network: Callable[[], nn.Module] | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.network = network
        self.interval_s = interval_s
        self._lock = threading.Condition()
        self._is_closing = False
        self._summary: StudySummary | None = None
        self._newest: dict[RunKey, TrialRecord] = {}
        self._waiting: dict[RunKey, None] = {}  # runs to bring up to date, in the order of their turn
        self._front: frozenset[RunKey] = frozenset()  # and the finalists' trainings whose models are deployed
        self._points: list[Point] = []
        self._told_ms = 0
        self._ended: bool | None = None  # whether interrupted, once it has ended
        self._has_failed = False
        self._is_study_waiting = False
        self._thread: threading.Thread | None = None
        self._uploader: Uploader | None = None
        self._outage: Outage | None = None

    @property
    def has_started(self) -> bool:
        """Whether there is a study to bring to MLflow."""
        return self._thread is not None

    def study_started(self, summary: StudySummary) -> None:
        """Begin to talk to MLflow about a study."""
        with self._lock:
            self._summary = summary
            self._is_study_waiting = True
        self._uploader = Uploader(summary, self.tracking_uri, self.network)
        self._outage = Outage(self._uploader.tracking_uri, summary.folder)
        self._thread = threading.Thread(target=self._work, name="dirprune-tracking", daemon=True)
        self._thread.start()

    def trial_changed(self, record: TrialRecord) -> None:
        """Note the newest state of a trial."""
        if record.state != "WAITING":
            self._note([record])

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Note the front: its size and hypervolume for the study, a tag for each trial that came or went."""
        with self._lock:
            self._points += view_progress(hypervolume, len(front), counts, self._tell_time())
            now: frozenset[RunKey] = frozenset(record.number for record in front)
            self._waiting.update(dict.fromkeys((now ^ self._front) & self._newest.keys()))
            self._front = now
            self._is_study_waiting = True
            self._lock.notify()

    def study_failed(self, reason: str) -> None:
        """Note that the end, of which is told next, is a failure."""
        with self._lock:
            self._has_failed = True

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Note the end; `close` waits until it has been told."""
        with self._lock:
            self._points += view_counts(count_states(records), self._tell_time())
            self._front = frozenset(record.number for record in records if record.is_front)
            self._ended = interrupted
            self._is_study_waiting = True
        self._note([record for record in records if record.state != "WAITING"])

    def finalist_changed(self, training: FinalTraining) -> None:
        """Note the newest state of a training; the study's run has not ended yet."""
        key = (training.record.number, training.repetition)
        with self._lock:
            self._ended = None
            self._newest[key] = training.record
            self._waiting[key] = None
            self._lock.notify()

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Note means and spreads, and which models are those of the final front."""
        with self._lock:
            self._points += view_finalists(finalists, self._tell_time())
            deployed = {(f.record.number, f.best) for f in finalists if f.record.is_front}
            trials = {key for key in self._front if isinstance(key, int)}
            changed = (deployed | trials) ^ self._front
            self._front = frozenset(deployed | trials)
            self._waiting.update(dict.fromkeys(changed & self._newest.keys()))
            self._ended = interrupted
            self._is_study_waiting = True
            self._lock.notify()

    def close(self, timeout: float = 120.0) -> list[str]:
        """Wait until everything is in MLflow, at most `timeout` s, and end the thread.

        A study of whose end nobody told is one that was interrupted.

        Returns:
            What could not be uploaded, in words; empty if all is there.
        """
        if self._thread is None:
            return []
        with self._lock:
            if self._ended is None:
                self._ended, self._is_study_waiting = True, True
            self._is_closing = True
            self._lock.notify()
        self._thread.join(timeout)
        left = self._list_left()
        assert self._outage is not None
        if left and left != self._outage.missing:
            logger.warning(
                "not in MLflow: %s; the study's own files have it all, and --resume completes MLflow",
                ", ".join(left),
            )
        return left

    def _note(self, records: Sequence[TrialRecord]) -> None:
        with self._lock:
            for record in records:
                if self._newest.get(record.number) != record:
                    self._newest[record.number] = record
                    self._waiting[record.number] = None
            self._lock.notify()

    def _tell_time(self) -> int:
        """Return the Unix time in ms, later each time: of two points at one time nobody knows the newer."""
        self._told_ms = max(round(time.time() * 1000), self._told_ms + 1)
        return self._told_ms

    def _list_left(self) -> list[str]:
        assert self._uploader is not None
        with self._lock:
            left = [f"{len(self._waiting)} trials"] if self._waiting else []
            if self._is_study_waiting:
                left.append("the study's run with its files and models")
        return left + self._uploader.refused

    def _work(self) -> None:
        assert self._outage is not None
        n_failures, was_closing = 0, False
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._is_closing or self._has_work(), timeout=FILES_EVERY_S)
                is_closing = self._is_closing
                if is_closing and not was_closing:
                    n_failures, was_closing = 0, True
                if is_closing and (not self._has_work() or n_failures >= FAILURES_AT_CLOSE):
                    return
            try:
                self._do_round()
                n_failures = 0
                self._outage.end()
            except Exception as error:  # tracking never fails a study
                n_failures += 1
                self._tell_of_failure(error)
            wait_s = min(self.interval_s * 2**n_failures, LONGEST_WAIT_S)
            with self._lock:
                if not is_closing:
                    self._lock.wait_for(lambda: self._is_closing, timeout=wait_s)
                elif n_failures:
                    self._lock.wait(min(wait_s, 1.0))

    def _tell_of_failure(self, error: Exception) -> None:
        """Warn of MLflow; between the search's end and what follows, the next attempt knows the words."""
        assert self._outage is not None
        with self._lock:
            ended, is_closing = self._ended, self._is_closing
        if is_closing:
            self._outage.begin(error, "was interrupted" if ended else "has ended", self._list_left())
        elif ended is None:
            self._outage.begin(error)

    def _list_front(self) -> list[RunKey]:
        """Return the front's trials by number, each before its own trainings."""
        return sorted(self._front, key=lambda key: (key,) if isinstance(key, int) else key)

    def _has_work(self) -> bool:
        return self._is_study_waiting or bool(self._waiting)

    def _do_round(self) -> None:
        """Bring MLflow up to date; what fails keeps waiting.

        A trial that fails by itself does not hold up the others.
        """
        uploader = self._uploader
        assert uploader is not None
        uploader.connect()
        with self._lock:
            turn = list(self._waiting)
        failure: Exception | None = None
        for key in turn:
            with self._lock:
                del self._waiting[key]
                record = self._newest[key].on_front(key in self._front)
            try:
                uploader.upload(key, record)
            except Exception as error:
                with self._lock:
                    self._waiting[key] = None
                uploader.check_alive()  # raises where it was not the trial's own fault
                failure = error
        with self._lock:
            points, front = list(self._points), self._list_front()
            ended, has_failed = self._ended, self._has_failed and self._ended is not None
            self._is_study_waiting = False
        try:
            uploader.upload_study(points, front, ended, has_failed)
        except Exception:
            with self._lock:
                self._is_study_waiting = True
            raise
        with self._lock:
            del self._points[: len(points)]  # sent: a long study would look at all of them in each round
        if failure is not None:
            raise failure
