"""Let Ray Tune run the trials of a ledger."""

from __future__ import annotations

import tempfile
import uuid
from typing import TYPE_CHECKING, Any, cast

from dirprune.tuning.cluster import Slots
from dirprune.tuning.finalists import FinalistAccounts
from dirprune.tuning.full_disk import FullDiskWatch
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.mends import (
    keep_keys_from_ray_,
    leave_callbacks_uncounted_,
    lose_workers_to_memory_,
    run_again_what_was_lost_between_trials_,
)

if TYPE_CHECKING:
    from ray.tune import Trainable

MAX_LOST_WORKERS = 2  # the third loss of a trial's worker is the trial's own failure


def execute(
    ledger: Ledger | FinalistAccounts, slots: Slots, trainable: type[Trainable], **parameters: Any
) -> str:
    """Run a ledger's trials until it has no more; Ray's own files go, as it owns nothing that outlives it.

    Args:
        ledger: Hands out the trials and hears what becomes of them.
        slots: How many trials run at once, and what each may use.
        trainable: What runs a configuration; it reports as `PruningTrainable` does.
        parameters: Given to the trainable's `setup`, once for each worker.

    Returns:
        Why nothing more could be written, where a full disk ended it in order; else nothing.
    """
    from ray import tune

    from dirprune.tuning.searcher import ForgiveLostMachines, LedgerScheduler, LedgerSearcher

    keep_keys_from_ray_()
    leave_callbacks_uncounted_()
    lose_workers_to_memory_()
    run_again_what_was_lost_between_trials_()
    watch = FullDiskWatch(ledger, ledger.folder.root)
    searcher = LedgerSearcher(cast("Ledger", watch))  # it asks and tells the same
    with tempfile.TemporaryDirectory(prefix="dirprune-ray-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trainable, **parameters) if parameters else trainable,
                tune.PlacementGroupFactory([dict(slots.bundle)] * slots.n_workers),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=LedgerScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=slots.n_trials,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex,
                storage_path=scratch,
                callbacks=[ForgiveLostMachines(searcher)],
                failure_config=tune.FailureConfig(max_failures=MAX_LOST_WORKERS),
                verbose=0,
            ),
        )
        tuner.fit()
    return watch.reason
