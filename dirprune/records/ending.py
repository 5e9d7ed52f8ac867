"""How the last run of a study ended: in order, by itself before its last trial, or with nothing pruned."""

from __future__ import annotations

from collections.abc import Sequence

from dirprune.files import read_json, write_json
from dirprune.records.finalists import Finalist, FinalTraining
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver, StudySummary

SCHEMA = 1


def write_ending(folder: StudyFolder, failure: str = "") -> None:
    """Note how a study ended.

    Args:
        folder: The study's.
        failure: Why it failed: it ended by itself too early, or no pruned trial finished; empty: it did not.
    """
    write_json(folder.ending_json, {"failure": failure}, SCHEMA)


def read_ending(folder: StudyFolder) -> str | None:
    """Return why the last run of a study failed; empty: it did not.

    Returns:
        None where nobody noted it: a run is at work, was killed, or was of an earlier version.

    Raises:
        StudyError: If the file is another one, or damaged.
    """
    if not folder.ending_json.exists():
        return None
    return str(read_json(folder.ending_json, SCHEMA).get("failure", ""))


class EndingWriter(StudyObserver):
    """Note how a study ends, and forget it as long as the study goes on."""

    def __init__(self) -> None:
        self.failure = ""

    def study_started(self, summary: StudySummary) -> None:
        """Forget how the run before ended: this one may be killed."""
        self.folder = summary.folder
        self.folder.ending_json.unlink(missing_ok=True)

    def study_failed(self, reason: str) -> None:
        """Learn why the end, of which is told next, is a failure."""
        self.failure = reason

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Note the end of the search."""
        write_ending(self.folder, self.failure)

    def finalist_changed(self, training: FinalTraining) -> None:
        """Forget it again: the study goes on with its finalists, and may be killed."""
        self.folder.ending_json.unlink(missing_ok=True)

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Note the end of the finalists' trainings."""
        write_ending(self.folder, self.failure)
