"""The last stage of a study: members of its front are trained again on Ray, and observers are told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dirprune.records.finalists import FinalTraining, choose_finalists, read_finalists, read_trainings
from dirprune.records.front import sort_front
from dirprune.records.record import TrialRecord
from dirprune.study.observer import tell_all
from dirprune.study.space import Configuration
from dirprune.trial import TrialContext
from dirprune.tuning import storage
from dirprune.tuning.cluster import Resources, connect
from dirprune.tuning.endings import TimeLimit
from dirprune.tuning.execution import execute
from dirprune.tuning.finalists import FinalistAccounts, FinalistOptions
from dirprune.tuning.full_disk import describe_full_disk
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.own_methods import OwnMethods


def run_finalists(
    ledger: Ledger,
    context: TrialContext,
    options: FinalistOptions | None,
    resources: Resources,
    limit: TimeLimit,
) -> tuple[bool, dict[tuple[int, int], str]]:
    """Train what is missing of the finalists; what earlier runs have trained is told again.

    Args:
        ledger: Of a search that is over.
        context: What all trials share.
        options: How finalists are trained; None: none is, but the observers hear of those that were.
        resources: What to use of which cluster.
        limit: Ends the stage in order when the time is over.

    Returns:
        Whether it was interrupted, and why trainings failed, by trial and repetition.
    """
    folder, records, objectives = ledger.folder, ledger.records, ledger.summary.objectives
    trainings = read_trainings(folder, records)

    def tell(training: FinalTraining) -> None:
        tell_all(ledger.observers, lambda observer: observer.finalist_changed(training))

    for training in trainings:
        tell(training)
    is_interrupted = False
    failures: dict[tuple[int, int], str] = {}
    if options is not None:
        accounts = _open_accounts(ledger, options, _choose(ledger, options), tell)
        try:
            if accounts.has_work:
                with limit.running_out(), connect(resources) as slots:
                    from dirprune.tuning.trainable import (
                        FinalistTrainable,  # loads Ray: its environment is set
                    )

                    methods = OwnMethods.of(context.spec.space.users_own())
                    given = {"context": context, "methods": methods, "epochs": options.epochs}
                    reason = execute(accounts, slots, FinalistTrainable, **given)
                    if reason:
                        ledger.end_reason, is_interrupted = describe_full_disk(folder.root, reason), True
        except KeyboardInterrupt:
            is_interrupted = True
        failures = accounts.failures
    if options is not None or trainings:
        if ledger.end_reason:
            tell_all(ledger.observers, lambda observer: observer.study_failed(ledger.end_reason))
        finalists = read_finalists(folder, records, objectives, ledger.summary.floor)
        tell_all(ledger.observers, lambda observer: observer.finalists_ended(finalists, is_interrupted))
    return is_interrupted, failures


def _choose(ledger: Ledger, options: FinalistOptions) -> list[TrialRecord]:
    summary = ledger.summary
    return choose_finalists(
        sort_front(ledger.records),
        options.n_finalists,
        summary.objectives,
        summary.reference_point,
        summary.dense_costs,
    )


def _open_accounts(
    ledger: Ledger,
    options: FinalistOptions,
    chosen: Sequence[TrialRecord],
    tell: Callable[[FinalTraining], None],
) -> FinalistAccounts:
    """Open the accounts of the finalists with the configurations that their trials had."""
    configurations = {}
    for record in chosen:
        attributes = storage.read_trial(ledger.study, record.number).user_attrs
        configurations[record.number] = Configuration.from_json(attributes[storage.CONFIGURATION])
    trials = {record.number: record for record in chosen}
    return FinalistAccounts(ledger.folder, configurations, trials, options, tell)
