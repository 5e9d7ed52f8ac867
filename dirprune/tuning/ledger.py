"""The accounts of a study: every trial is asked for and told exactly once. Knows Optuna, but not Ray."""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import StorageError
from dirprune.groups import Grouping
from dirprune.halving import make_halving
from dirprune.pareto import to_losses
from dirprune.records.events import EventLog, read_events, replay
from dirprune.records.failures import describe_fruitless
from dirprune.records.folder import StudyFolder
from dirprune.records.front import GrowingFront, mark_front
from dirprune.records.hypervolume import compute_hypervolume
from dirprune.records.mirror import fetch, fetch_events, remove, send_events
from dirprune.records.record import TrialRecord
from dirprune.study import floor
from dirprune.study.observer import StudyObserver, StudySummary
from dirprune.study.shapes import Ranking
from dirprune.study.space import Configuration
from dirprune.study.spec import StudySpec
from dirprune.tuning import storage
from dirprune.tuning.samplers.learning import LearningSampler

logger = logging.getLogger("dirprune.tuning")

MAX_INFEASIBLE_IN_A_ROW = 1000
MAX_FAILURES_IN_A_ROW = 10


class Ledger:
    """Keep the accounts of one study for its one driver.

    Contract: the driver's thread alone calls it. A configuration that `next_configuration` returned is owned
    by the caller until it is given back through exactly one of `completed`, `halted` or `failed`; what is
    never given back stays RUNNING in the storage, and the next driver hands it out again, as the same trial.
    A trial that was halted by a halving that pauses stays RUNNING as well, and may be handed out once more.

    Args:
        spec: The study.
        grouping: The network's channel groups.
        costs: Costs of any architecture.
        folder: Where the study's files lie.
        study: The study in Optuna's storage.
        summary: What observers are told of the study.
        rungs: Resources at which trials may be halted, in training images.
        observers: Who is told of every change.
        warm_starts: Architectures to begin with, right after the dense one.
        ranking: The methods' scores, where architectures follow from them.
    """

    def __init__(
        self,
        spec: StudySpec,
        grouping: Grouping,
        costs: CostModel,
        folder: StudyFolder,
        study: optuna.Study,
        summary: StudySummary,
        rungs: Sequence[int],
        observers: Sequence[StudyObserver] = (),
        warm_starts: Sequence[Architecture] = (),
        ranking: Ranking | None = None,
    ) -> None:
        self.spec, self.grouping, self.costs, self.folder, self.study = spec, grouping, costs, folder, study
        self.summary, self.observers = summary, observers
        self.halving = make_halving(spec.halving, rungs, spec.reduction_factor)
        self.metrics = [objective.metric for objective in spec.objectives]
        self.end_reason = ""
        self.fruitless = ""
        self.finish_reason = ""
        self._failures_in_a_row = 0
        self._failing: set[str] = set()
        self._open: dict[int, optuna.trial.Trial] = {}
        self._paused: dict[int, int] = {}  # training images by number of the trial
        self._records: dict[int, TrialRecord] = {}
        self._front = GrowingFront(summary.objectives)
        self.shapes = spec.space.shapes(costs, spec.limits, ranking)
        self._enqueue_first_trials(warm_starts)
        known = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
        pauses = {trial.number: storage.find_pause(trial) for trial in known}
        self._paused = {number: images for number, images in pauses.items() if images is not None}
        self._again = [
            trial for trial in known if trial.state == TrialState.RUNNING and trial.number not in self._paused
        ]
        settled = [trial for trial in known if trial.state != TrialState.RUNNING]
        self._n_infeasible = sum(map(storage.is_infeasible, settled))
        self._n_started = len(known) - self._n_infeasible
        for trial in settled:  # a driver that was killed may not have come to this
            shutil.rmtree(folder.checkpoint_dir(trial.number), ignore_errors=True)
        for trial in known:
            if not storage.is_infeasible(trial):
                if trial.state == TrialState.RUNNING or not folder.events(trial.number).exists():
                    fetch_events(folder, trial.number)
                self._records[trial.number] = storage.make_trial_record(folder, trial, self.metrics)
                self._replay_rungs(trial)
        self._named = {image for record in self._records.values() for image in record.unreadable}
        self._take_into_front(list(self._records.values()))
        if isinstance(study.sampler, LearningSampler):
            study.sampler.read(study)

    def _enqueue_first_trials(self, warm_starts: Sequence[Architecture]) -> None:
        """Enqueue what every study starts with, unless an earlier driver has done it."""
        dense, *others = self.spec.space.first_trials(self.grouping)
        first = [dense, *(("warm-start", architecture) for architecture in warm_starts), *others]
        n_enqueued = sum(
            storage.SOURCE in trial.user_attrs for trial in self.study.get_trials(deepcopy=False)
        )
        for source, architecture in first[n_enqueued:]:
            attributes = {storage.SOURCE: source, storage.ARCHITECTURE: architecture.to_json()}
            parameters = self.shapes.parameters(architecture)
            if source != "warm-start":  # those begin the search; the others are what it is compared with
                parameters |= self.spec.space.plain_choices()
            self.study.enqueue_trial(parameters, user_attrs=attributes)

    def _replay_rungs(self, trial: FrozenTrial) -> None:
        """Let the rungs know what an earlier driver heard."""
        if not self._is_compared(trial):
            return
        for rung in self.halving.rungs:
            losses = trial.user_attrs.get(f"{storage.RUNG}{rung}")
            if losses is not None:
                is_paused = self._paused.get(trial.number) == rung
                self.halving.resume(trial.number, rung, losses, is_paused=is_paused)

    def _is_compared(self, trial: FrozenTrial) -> bool:
        """Whether others are compared with a trial at rungs: not with a dense network above a limit."""
        return storage.find_violations(trial).keys().isdisjoint(self.spec.limits)

    @property
    def records(self) -> list[TrialRecord]:
        """Every started trial by number, with the front marked."""
        records = [self._records[number] for number in sorted(self._records)]
        return mark_front(records, self.summary.objectives)

    @property
    def has_work(self) -> bool:
        """Whether there is a trial to continue, to promote or to start."""
        has_more = self._n_started < self.spec.trials or self.halving.has_promotion
        return bool(self._again) or (not self.finish_reason and has_more)

    @property
    def may_have_more(self) -> bool:
        """Whether trials that run now may let others go on that are paused."""
        return self.halving.pauses and bool(self._open) and not (self.end_reason or self.finish_reason)

    @property
    def counts(self) -> dict[str, int]:
        """Number of started trials by state, by Optuna's names, and of those refused before, INFEASIBLE.

        Paused ones are PAUSED and do not count as RUNNING.
        """
        counts = Counter[str](record.state for record in self._records.values())
        if self.halving.pauses:
            counts["PAUSED"] = len(self._paused)
            counts["RUNNING"] -= len(self._paused)
        if self._n_infeasible:
            counts["INFEASIBLE"] = self._n_infeasible
        return dict(counts)

    @property
    def hypervolume(self) -> float:
        """The hypervolume of the finished trials; costs count as fractions of the dense network's."""
        summary = self.summary
        return compute_hypervolume(
            self._front.undominated, summary.objectives, summary.reference_point, summary.dense_costs
        )

    def start(self) -> None:
        """Tell the observers what the study is and which trials it has."""
        self._tell_observers(lambda observer: observer.study_started(self.summary))
        for number in sorted(self._records):
            if self._records[number].architecture:  # not yet chosen when its driver was killed
                self._tell_of_trial(number)
        if self._records:
            self._tell_of_front()

    def next_configuration(self) -> Configuration | None:
        """Hand out the next trial: one that an earlier driver left RUNNING, a paused one, or a new one.

        Returns:
            None when there is none: for good, or, where `may_have_more`, for the time being.
        """
        while self._again:
            configuration = self._hand_out(storage.continue_trial(self.study, self._again.pop(0)))
            if configuration is not None:
                return configuration
            self._n_started -= 1
        if self.end_reason or self.finish_reason:
            return None
        if (promoted := self.halving.next_promotion()) is not None:
            return self._promote(promoted)
        if self._n_started >= self.spec.trials:
            return None
        for _ in range(MAX_INFEASIBLE_IN_A_ROW):
            configuration = self._hand_out(self.study.ask())
            if configuration is not None:
                self._n_started += 1
                return configuration
        self.end_reason = (
            f"{MAX_INFEASIBLE_IN_A_ROW} architectures in a row were above the limits {dict(self.spec.limits)}"
        )
        return None

    def finish(self, reason: str) -> None:
        """Start no more trials, because enough is known; those under way still end."""
        self.finish_reason = self.finish_reason or reason

    def _promote(self, number: int) -> Configuration:
        """Let a paused trial go on, as a new attempt at it."""
        frozen = storage.read_trial(self.study, number)
        trial = self._open[number] = storage.continue_trial(self.study, frozen)
        trial.set_user_attr(storage.PAUSED_AT, None)
        del self._paused[number]
        self._refresh(number)
        self._tell_of_trial(number)
        return Configuration.from_json(frozen.user_attrs[storage.CONFIGURATION])

    def _hand_out(self, trial: optuna.trial.Trial) -> Configuration | None:
        """Fix a trial's configuration in the storage; None if a limit forbids it.

        The driver may be killed between any two of these steps: the next one takes them again.
        """
        with storage.write_together(trial):
            configuration = self._fix_configuration(trial)
        if configuration is None:
            self._records.pop(trial.number, None)
            self._n_infeasible += 1
            return None
        self._open[configuration.number] = trial
        self._refresh(configuration.number)
        self._tell_of_trial(configuration.number)
        return configuration

    def _fix_configuration(self, trial: optuna.trial.Trial) -> Configuration | None:
        attributes = trial.user_attrs
        if storage.CONFIGURATION in attributes:
            configuration = Configuration.from_json(attributes[storage.CONFIGURATION])
        else:
            source = attributes.get(storage.SOURCE, "sampler")
            given = attributes.get(storage.ARCHITECTURE)
            architecture = None if given is None else Architecture.from_json(given)
            configuration = self.spec.space.suggest(trial, self.shapes, trial.number, source, architecture)
        if self._exceeds_limits(trial, configuration) and configuration.source != "dense":
            trial.set_user_attr(storage.INFEASIBLE, True)
            self.study.tell(trial, state=TrialState.PRUNED)
            return None
        trial.set_user_attr(storage.CONFIGURATION, configuration.to_json())
        trial.set_user_attr(storage.ADOPTABLE, True)
        return configuration

    def _exceeds_limits(self, trial: optuna.trial.Trial, configuration: Configuration) -> bool:
        """Store a trial's costs and by how much each is above its limit."""
        costs = self.costs.costs(configuration.architecture).as_dict()
        trial.set_user_attr(storage.COSTS, costs)
        excess = {metric: costs[metric] - limit for metric, limit in self.spec.limits.items()}
        self._constrain(trial, excess)
        return any(value > 0 for value in excess.values())

    def _constrain(self, trial: optuna.trial.Trial, excess: Mapping[str, float]) -> None:
        """Store by how much each metric is beyond its limit; a driver that was killed may have done so."""
        known = storage.read_trial(self.study, trial.number).constraints
        for metric, value in excess.items():
            if metric not in known:  # Optuna lets it be set once
                trial.set_constraint(metric, value)

    def reported(self, number: int, images: int, metrics: Mapping[str, float]) -> bool:
        """Take a report of a running trial.

        Returns:
            Whether the trial goes on; only one that the sampler chose may be told to halt, at a rung.
        """
        fetch_events(self.folder, number)
        goes_on = True
        if images in self.halving.rungs:
            values = [[float(metrics[metric]) for metric in self.metrics]]
            losses = to_losses(values, self.spec.directions)[0].tolist()
            if self._records[number].source == "sampler":
                goes_on = self.halving.report(number, images, losses)
            elif self._is_compared(storage.read_trial(self.study, number)):
                self.halving.resume(number, images, losses, is_paused=False)
            trial = self._open[number]
            with storage.write_together(trial):
                # In a database each is a write of its own: a rung without its pause would be a promotion.
                pause = images if not goes_on and self.halving.pauses else None
                if trial.user_attrs.get(storage.PAUSED_AT) != pause:
                    trial.set_user_attr(storage.PAUSED_AT, pause)
                trial.set_user_attr(f"{storage.RUNG}{images}", losses)
        self._refresh(number)
        self._tell_of_trial(number)
        return goes_on

    def completed(self, number: int, metrics: Mapping[str, float]) -> None:
        """Tell a trial that ran to its full resource."""
        fetch_events(self.folder, number)
        fetch(self.folder, self.folder.model_dir(number))
        values = [float(metrics[metric]) for metric in self.metrics]
        if not all(map(math.isfinite, values)):
            self.failed(
                number, f"objectives {dict(zip(self.metrics, values, strict=True))} are not all finite"
            )
            return
        self._failures_in_a_row = 0
        if self.summary.floor is not None:
            losses = to_losses([values], self.spec.directions)[0].tolist()
            self._constrain(self._open[number], {floor.METRIC: self.summary.floor.shortfall(losses)})
        self._settle(number, TrialState.COMPLETE, {}, values)
        self._take_into_front([self._records[number]])
        self._tell_of_front()

    def _take_into_front(self, records: Sequence[TrialRecord]) -> None:
        """Keep the models alone that are on the front or can come to it."""
        for number in self._front.add_(records):
            if self.folder.model_dir(number).exists():
                remove(self.folder, self.folder.model_dir(number))

    def halted(self, number: int, images: int) -> None:
        """Take back a trial that was told to halt at a rung: it pauses, or is told as stopped.

        Its last values are no final objectives.
        """
        self._failures_in_a_row = 0
        path = self.folder.events(number)
        fetch_events(self.folder, number)
        if (attempt := replay(read_events(path)).attempt) is not None:
            EventLog(path, attempt).append("stopped", images=images)
            send_events(self.folder, number, attempt)
        if self.halving.pauses:
            del self._open[number]
            self._paused[number] = images
            self._refresh(number)
            self._tell_of_trial(number)
        else:
            self._settle(number, TrialState.PRUNED, {storage.STOPPED_AT: images})

    def failed(self, number: int, reason: str = "") -> None:
        """Tell a trial that raised, gave no finite objective, or lost its worker too often.

        Args:
            reason: What happened; empty: what its events say.
        """
        fetch_events(self.folder, number)
        reason = reason or self._last_failure(number)
        self._settle(number, TrialState.FAIL, {storage.REASON: reason})
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.end_reason = f"{self._failures_in_a_row} trials in a row failed, the last one with: {reason}"

    def end(self, interrupted: bool) -> None:
        """Tell the observers that the driver leaves in order; if the search is over, what is paused stops.

        A search that is over has failed where trials failed and no pruned one finished.

        Ctrl-C may have come between telling a trial and noting it here: the storage says how it stands.
        """
        with suppress(StorageError):  # of one that is lost, the next driver will ask it
            for number in [n for n, record in self._records.items() if record.state == "RUNNING"]:
                self._refresh(number)
        if not interrupted and not self.end_reason:
            self._stop_paused()
            self.fruitless = describe_fruitless(self.records)
        self._take_into_front(list(self._records.values()))
        if failure := self.end_reason or self.fruitless:
            self._tell_observers(lambda observer: observer.study_failed(failure))
        records = self.records
        self._tell_observers(lambda observer: observer.study_ended(records, interrupted))

    def _stop_paused(self) -> None:
        """Tell the trials that nothing will ask to go on; all of them reach the journal at once."""
        with storage.write_together(self.study):
            while self._paused:
                number, images = self._paused.popitem()
                self._settle(number, TrialState.PRUNED, {storage.STOPPED_AT: images})

    def is_preempted(self, number: int) -> bool:
        """Whether the worker of a trial's newest attempt was told to end."""
        fetch_events(self.folder, number)
        return replay(read_events(self.folder.events(number))).is_preempted

    def _last_failure(self, number: int) -> str:
        failed = replay(read_events(self.folder.events(number))).failed
        return str(failed["reason"]) if failed else "its worker was lost too often (killed, or out of memory)"

    def _settle(
        self,
        number: int,
        state: TrialState,
        attributes: dict[str, str | int],
        values: Sequence[float] | None = None,
    ) -> None:
        self._open.pop(number, None)
        storage.settle(self.study, number, state, attributes, values)
        remove(self.folder, self.folder.checkpoint_dir(number))
        self._refresh(number)
        self._tell_of_trial(number)

    def _refresh(self, number: int) -> None:
        frozen = storage.read_trial(self.study, number)
        self._records[number] = storage.make_trial_record(self.folder, frozen, self.metrics)
        for image in self._records[number].unreadable:
            if image not in self._named:
                self._named.add(image)
                logger.warning("image left out: %s", image)
        if isinstance(self.study.sampler, LearningSampler):
            self.study.sampler.learn(self.study, frozen)

    def _tell_of_trial(self, number: int) -> None:
        record = self._records[number]
        self._tell_observers(lambda observer: observer.trial_changed(record))

    def _tell_of_front(self) -> None:
        front, hypervolume, counts = self._front.records, self.hypervolume, self.counts
        self._tell_observers(lambda observer: observer.front_changed(front, hypervolume, counts))

    def _tell_observers(self, tell: Callable[[StudyObserver], None]) -> None:
        """Tell each observer; one that fails is named once and does not fail the study."""
        for observer in self.observers:
            try:
                tell(observer)
            except Exception as error:  # whatever an observer raises is its own
                name = type(observer).__name__
                if name not in self._failing:
                    self._failing.add(name)
                    logger.warning("%s failed, the study goes on: %s: %s", name, type(error).__name__, error)
