"""Everything that is derived from a study's records, tables and pictures, kept up to date while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from dirprune.records.finalists import Finalist, read_finalists, write_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.front_page import write_front_html
from dirprune.records.latency import add_measured
from dirprune.records.pictures import write_architectures_png, write_front_png
from dirprune.records.record import TrialRecord
from dirprune.records.tables import write_front, write_trials
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudyObserver, StudySummary

TABLES_EVERY_S = 2.0
PICTURES_EVERY_S = 60.0
SHARE = 30


def write_tables(
    folder: StudyFolder, records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> None:
    """Write `front.csv` and `trials.csv`; quick enough for every change.

    Args:
        folder: The study's folder.
        records: Every trial, with `is_front` set.
        objectives: The study's objectives.
    """
    write_trials(folder.trials_csv, records, objectives)
    write_front(folder.front_csv, records, objectives)
    add_measured(folder)


def write_views(summary: StudySummary, records: Sequence[TrialRecord]) -> None:
    """Write the tables, `front.html`, `front.png` and `architectures.png`.

    Where finalists have been trained, their tables too, and the pictures show their front.

    Args:
        summary: The study.
        records: Every trial, with `is_front` set.
    """
    folder, objectives = summary.folder, summary.objectives
    write_tables(folder, records, objectives)
    finalists = read_finalists(folder, records, objectives, summary.floor)
    final = "final " if finalists else ""
    if finalists:
        write_finalists(folder.finalists_csv, finalists)
        write_finalists(folder.final_front_csv, [f for f in finalists if f.record.is_front])
        add_measured(folder)
    title = f"{folder.root.name}: {final}Pareto front"
    write_front_html(folder.front_html, summary, records, title, finalists)
    write_front_png(folder.front_png, records, objectives, title, finalists)
    write_architectures_png(
        folder.architectures_png,
        [finalist.record for finalist in finalists] or records,
        summary.n_channels,
        f"{folder.root.name}: kept channels of the {final}front",
    )


class ViewWriter(StudyObserver):
    """Write the tables within seconds of a change, the pictures now and then, and both at the end.

    Writing takes longer the more trials there are: however many come, it takes at most one part in
    `SHARE` of the time.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.records: dict[int, TrialRecord] = {}
        self.has_front = False
        self.is_old = False
        self.tables_due = clock()
        self.pictures_due = clock() + PICTURES_EVERY_S

    def study_started(self, summary: StudySummary) -> None:
        """Learn where to write."""
        self.summary = summary

    def trial_changed(self, record: TrialRecord) -> None:
        """Note a trial."""
        self.records[record.number] = record
        self.is_old = True
        if self.has_front:
            self._write_what_is_due()

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Begin to write: before the first front a resumed study has not told of all its trials."""
        self.has_front = self.is_old = True
        self._write_what_is_due()

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Write everything for the last time."""
        write_views(self.summary, records)
        self.records = {record.number: record for record in records}

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Write everything once more, with the final front."""
        records = list(self.records.values())
        write_views(self.summary, records)

    def _write_what_is_due(self) -> None:
        began = self.clock()
        if not self.is_old or began < self.tables_due:
            return
        summary, has_pictures = self.summary, began >= self.pictures_due
        records = mark_front(list(self.records.values()), summary.objectives)
        if has_pictures:
            write_views(summary, records)
        else:
            write_tables(summary.folder, records, summary.objectives)
        self.is_old = False
        ended = self.clock()
        self.tables_due = ended + max(TABLES_EVERY_S, SHARE * (ended - began))
        if has_pictures:
            self.pictures_due = ended + max(PICTURES_EVERY_S, SHARE * (ended - began))
