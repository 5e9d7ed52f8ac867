"""Everything that is derived from a study's records, tables and pictures, kept up to date while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.front_page import write_front_html
from dirprune.records.pictures import write_architectures_png, write_front_png
from dirprune.records.record import TrialRecord
from dirprune.records.tables import write_front, write_trials
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudyObserver, StudySummary

PICTURES_EVERY_S = 60.0


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


def write_views(
    folder: StudyFolder,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    n_channels: Mapping[str, int],
) -> None:
    """Write the tables, `front.html`, `front.png` and `architectures.png`.

    Args:
        folder: The study's folder.
        records: Every trial, with `is_front` set.
        objectives: The study's objectives.
        n_channels: Channels of each group before pruning, in forward order.
    """
    write_tables(folder, records, objectives)
    name = folder.root.name
    write_front_html(folder.front_html, records, objectives, f"{name}: Pareto front")
    write_front_png(folder.front_png, records, objectives, f"{name}: Pareto front")
    write_architectures_png(
        folder.architectures_png, records, n_channels, f"{name}: kept channels of the front"
    )


class ViewWriter(StudyObserver):
    """Write the tables with every change of the front, the pictures now and then and at the end.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.records: dict[int, TrialRecord] = {}
        self.drawn_at = clock()

    def study_started(self, summary: StudySummary) -> None:
        """Learn where to write."""
        self.summary = summary

    def trial_changed(self, record: TrialRecord) -> None:
        """Note a trial."""
        self.records[record.number] = record

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Bring the tables up to date, and the pictures when they are old."""
        summary = self.summary
        records = mark_front(list(self.records.values()), summary.objectives)
        if self.clock() - self.drawn_at < PICTURES_EVERY_S:
            write_tables(summary.folder, records, summary.objectives)
        else:
            write_views(summary.folder, records, summary.objectives, summary.n_channels)
            self.drawn_at = self.clock()

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Write everything for the last time."""
        write_views(self.summary.folder, records, self.summary.objectives, self.summary.n_channels)
