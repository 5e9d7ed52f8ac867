"""What Ray Tune does that a study cannot live with, changed in this process before it runs trials."""

from __future__ import annotations

import functools
from typing import Any


def keep_keys_from_ray_() -> None:
    """Let Ray Tune hand no keys of object stores to its workers.

    It writes what it hands over into its logs and shows it in its dashboard. Workers have the keys from the
    environment of their node, where a study has looked for the store before it begins.
    """
    from ray.tune.execution import class_cache

    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}


def leave_callbacks_uncounted_() -> None:
    """Let Ray Tune not count callbacks for its statistics of use, which a study turns off.

    To tell them from those that it knows it would import MLflow, also where nothing is tracked.
    """
    from ray.air._internal import usage

    usage.tag_callbacks = lambda callbacks: False


def lose_workers_to_memory_() -> None:
    """Let a worker that Ray killed because its machine ran out of memory count as any worker that was lost.

    Ray reports it by an error that Tune does not know, which would end the whole study: seen with Ray 2.56,
    whose monitor of memory kills workers of several trials at once.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    fail = RayActorManager._actor_task_failed
    if hasattr(fail, "__wrapped__"):
        return

    @functools.wraps(fail)
    def fail_as_lost(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        fail(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = fail_as_lost  # type: ignore[method-assign]


def run_again_what_was_lost_between_trials_() -> None:
    """Let a trial whose worker was lost while it took the trial up after another one be run again.

    Ray hears of it twice: of the worker, upon which the trial is to be run again, and of what the worker was
    asked to do, upon which the trial fails, as it does not run. Without the second it would wait for ever for
    the worker to take it up.
    """
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    process = TuneController._process_trial_failure
    if hasattr(process, "__wrapped__"):
        return

    @functools.wraps(process)
    def process_once(self: TuneController, trial: Trial, exception: Any) -> None:
        if getattr(exception, "told_of", None) is trial:
            return
        if trial in self._resetting_trials:
            self._resetting_trials.discard(trial)
            exception.told_of = trial
        process(self, trial, exception)

    TuneController._process_trial_failure = process_once  # type: ignore[method-assign]
