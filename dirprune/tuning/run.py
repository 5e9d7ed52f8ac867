"""Run a study: from a declaration to a Pareto front on disk, and on from where an earlier run was cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dirprune.importance.base import Progress
from dirprune.interruption import ended_by_sigterm
from dirprune.records.ending import EndingWriter
from dirprune.records.finalists import Finalist, read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import sort_front
from dirprune.records.hypervolume import compute_hypervolume
from dirprune.records.mirror import ResultsSender
from dirprune.records.record import TrialRecord
from dirprune.records.views import ViewWriter
from dirprune.study.observer import StudyObserver
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import Patience
from dirprune.training import TrainingReport
from dirprune.tuning import storage
from dirprune.tuning.cluster import Resources, Slots, connect
from dirprune.tuning.endings import PatienceWatch, TimeLimit
from dirprune.tuning.execution import execute
from dirprune.tuning.final_stage import run_finalists
from dirprune.tuning.full_disk import describe_full_disk, say_how_to_go_on
from dirprune.tuning.garbage import sweeping
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.opening import open_ledger, open_study
from dirprune.tuning.options import RunOptions
from dirprune.tuning.own_methods import OwnMethods
from dirprune.tuning.preparation import Prepared, prepare
from dirprune.tuning.samplers import check_choice


@dataclass(frozen=True)
class StudyResult:
    """What a run leaves.

    Attributes:
        folder: The study's files.
        records: Every started trial, the front marked.
        hypervolume: Of the finished trials; costs as fractions of the dense network's.
        hypervolume_without_sampler: The same of the trials whose configuration the sampler did not choose.
        is_interrupted: Whether trials are left that a resumed run would go on with.
        end_reason: Why the study gave up before all its trials; empty if it did not.
        finish_reason: Why it ended in order before all its trials, by patience or the clock; empty otherwise.
        finalists: What was trained again, in earlier runs too, by macs, the final front marked.
        failed_finalists: Why a training of a finalist failed, by trial and repetition.
        n_refused: Architectures above a limit that were proposed and never started.
        fruitless: Why nothing came of the study: trials failed, and no pruned one finished; empty otherwise.
    """

    folder: StudyFolder
    records: list[TrialRecord]
    hypervolume: float
    hypervolume_without_sampler: float
    is_interrupted: bool
    end_reason: str
    finish_reason: str = ""
    finalists: tuple[Finalist, ...] = ()
    failed_finalists: Mapping[tuple[int, int], str] = field(default_factory=dict)
    n_refused: int = 0
    fruitless: str = ""

    @property
    def front(self) -> list[TrialRecord]:
        """The trials on the Pareto front, by macs."""
        return sort_front(self.records)


def run_study(
    spec: StudySpec,
    options: RunOptions | None = None,
    observers: Sequence[StudyObserver] = (),
    say: Callable[[str], None] = print,
    listen: Callable[[TrainingReport, int], None] | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Run a study to its end, or continue it.

    Args:
        spec: The study.
        options: Where and how.
        observers: Who is told of every change, such as the tracking.
        say: Takes the lines that a user should read.
        listen: Takes the reports of the dense network's training and its total of training images.
        progress: Told how far what comes before the first trial is.

    Raises:
        StudyError: If the study exists and was not to be continued, differs from the stored one, or is being
            driven by another process.
        StorageError: If the storage of the trials or of the machines is lost where no trial runs; says how to
            go on. Where trials run it ends them, and is the result's `end_reason`.
        DirpruneError: Of other kinds for data, weights and settings that cannot work.
    """
    options = options or RunOptions()
    limit = TimeLimit(options.time_limit_s)
    check_choice(options.sampler)
    patience = None if options.patience is None else Patience(options.patience, options.patience_share)
    opened = open_study(spec, options, say, progress)
    folder, subject = opened.folder, opened.subject
    with ended_by_sigterm(), storage.hold_study(folder), say_how_to_go_on():
        prepared = prepare(subject.spec, options, folder, subject, say, listen, progress)
        torch.cuda.empty_cache()  # trials on the same GPU need it; without one nothing happens
        ours = [ViewWriter(), EndingWriter(), *([ResultsSender(folder)] if folder.remote else [])]
        ledger = open_ledger(opened, prepared, options, [*ours, *observers], say)
        if patience is not None:
            ledger.observers = [*ledger.observers, PatienceWatch(patience, ledger)]
        failures: Mapping[tuple[int, int], str] = {}
        with sweeping() as sweep:
            ledger.observers = [*ledger.observers, sweep]
            is_interrupted = _run_trials(ledger, prepared, options.resources, limit)
            if not (is_interrupted or ledger.end_reason or ledger.fruitless):
                is_interrupted, failures = run_finalists(
                    ledger, prepared.context, options.finalists, options.resources, limit
                )
            if limit.is_over:
                ledger.finish(limit.reason)
    return _sum_up(ledger, is_interrupted, failures)


def _run_trials(ledger: Ledger, prepared: Prepared, resources: Resources, limit: TimeLimit) -> bool:
    """Run the trials that are left, and return whether that was interrupted."""
    is_interrupted = False
    ledger.start()
    try:
        if ledger.has_work:
            with limit.running_out(), connect(resources) as slots:
                if reason := _execute(ledger, prepared, slots):
                    ledger.end_reason = describe_full_disk(ledger.folder.root, reason)
    except KeyboardInterrupt:
        is_interrupted = True
    if limit.is_over:
        ledger.finish(limit.reason)
    ledger.end(is_interrupted)
    return is_interrupted


def _execute(ledger: Ledger, prepared: Prepared, slots: Slots) -> str:
    """Let Ray Tune prune and fine-tune the ledger's trials; see `execute`."""
    from dirprune.tuning.trainable import PruningTrainable  # loads Ray, whose environment is set by now

    methods = OwnMethods.of(prepared.context.spec.space.users_own())
    return execute(ledger, slots, PruningTrainable, context=prepared.context, methods=methods)


def _sum_up(ledger: Ledger, is_interrupted: bool, failures: Mapping[tuple[int, int], str]) -> StudyResult:
    """Return what a study has come to."""
    records, summary = ledger.records, ledger.summary
    objectives = summary.objectives
    others = [record for record in records if record.source != "sampler"]
    return StudyResult(
        ledger.folder,
        records,
        ledger.hypervolume,
        compute_hypervolume(others, objectives, summary.reference_point, summary.dense_costs),
        is_interrupted,
        ledger.end_reason,
        ledger.finish_reason,
        tuple(read_finalists(ledger.folder, records, objectives, summary.floor)),
        failures,
        ledger.counts.get("INFEASIBLE", 0),
        ledger.fruitless,
    )
