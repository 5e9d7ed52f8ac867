"""Everything that is derived from a study's records: tables and pictures, always all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dirprune.records.folder import StudyFolder
from dirprune.records.front_page import write_front_html
from dirprune.records.pictures import write_architectures_png, write_front_png
from dirprune.records.record import TrialRecord
from dirprune.records.tables import write_front, write_trials
from dirprune.study.objectives import Objective


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
