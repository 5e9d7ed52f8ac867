"""How progress, tracking and pictures hang on to a study without the study knowing them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dirprune.errors import one_line
from dirprune.records.finalists import Finalist, FinalTraining
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.floor import Floor
from dirprune.study.objectives import Objective

logger = logging.getLogger("dirprune.study")


@dataclass(frozen=True)
class StudySummary:
    """What a study is, for those who watch it.

    Attributes:
        name: The study's name, as the user wrote it.
        study_id: Its own id, made when it began; a namesake elsewhere has another.
        folder: Where its files lie.
        objectives: What it optimises.
        reference_point: The fixed reference of the hypervolume, value per objective metric.
        dense_costs: Cost per metric name (macs, parameters) of the dense network.
        description: Further facts as text: network, data, loss, evaluation, versions.
        n_channels: Channels of each group of the dense network, in forward order.
        n_trials: Total of trials to start.
        seed: The study's seed.
        resumed: Whether it goes on from an earlier run.
        floor: The least accuracy of a network on the front; None: there is none.
    """

    name: str
    study_id: str
    folder: StudyFolder
    objectives: tuple[Objective, ...]
    reference_point: Mapping[str, float]
    dense_costs: Mapping[str, float]
    n_channels: Mapping[str, int]
    n_trials: int
    seed: int
    description: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False
    floor: Floor | None = None


class StudyObserver:
    """Watch a study; every method does nothing here.

    All methods are called from the driver's own thread, one at a time, and should return at once: the study
    waits for them. An observer must not fail the study: it keeps its exceptions to itself and logs them.
    """

    def study_started(self, summary: StudySummary) -> None:
        """Called once, before any trial starts."""

    def trial_changed(self, record: TrialRecord) -> None:
        """Called whenever a trial started, reported or ended, with all that is known of it by then.

        A resumed study calls it for each earlier trial as well, so the same record may come twice.
        """

    def front_changed(
        self, front: Sequence[TrialRecord], hypervolume: float, counts: Mapping[str, int]
    ) -> None:
        """Called after each finished trial, and at the start of a resumed study.

        Args:
            front: The Pareto front over finished trials, sorted by macs.
            hypervolume: Volume between front and reference point; costs count as fractions of the dense
                network's, other metrics as they are.
            counts: Number of trials by state, by Optuna's names.
        """

    def study_failed(self, reason: str) -> None:
        """Called once, before `study_ended` or `finalists_ended`, where the study has failed.

        Args:
            reason: Why: it ends by itself too early, because its trials kept failing, say, or the disk is
                full; or no pruned trial finished.
        """

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Called once, when the search is over or the driver is about to leave in order.

        Args:
            records: Every trial of the study, with `is_front` set.
            interrupted: Whether trials are left that a resumed study would go on with.
        """

    def finalist_changed(self, training: FinalTraining) -> None:
        """Called after the search whenever a training of a finalist started, reported or ended.

        Before any starts, it is called for each one that has begun already, also in earlier runs.
        """

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Called once, after the search of a study that has finalists.

        Args:
            finalists: All that have a finished training, by macs, with the final front marked.
            interrupted: Whether trainings are left that a resumed study would go on with.
        """


def tell_all(observers: Sequence[StudyObserver], tell: Callable[[StudyObserver], None]) -> None:
    """Tell each observer; one that fails is named and does not fail the study."""
    for observer in observers:
        try:
            tell(observer)
        except Exception as error:  # whatever an observer raises is its own
            name = type(observer).__name__
            logger.warning("%s was told and failed: %s", name, one_line(error, has_type=True))
