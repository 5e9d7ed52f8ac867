"""Ray Tune's view of the ledger: a searcher that hands out trials and a scheduler that halts them."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dirprune.tuning.finalists import FinalistAccounts
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.reports import CONFIGURATION, FAILED, IMAGES, IS_FINAL, METRICS

MACHINE_LOST = ("its node has died", "is temporarily unavailable")
"""How Ray puts it. A worker that died on a living machine is reported as dead; one of which nobody can say
anything has lost its machine, or the way to it."""
MAX_FORGIVEN = 20  # for each trial, so that nothing is repeated for ever
MAX_START_S = 60.0  # of a worker: Python and torch come from a network's disk, on a machine that is new


class LedgerSearcher(Searcher):
    """Hand the ledger's configurations to Ray Tune, and Ray Tune's endings to the ledger.

    Ray's own state of the search is never saved: Optuna's storage is the truth.
    """

    def __init__(self, ledger: Ledger | FinalistAccounts) -> None:
        super().__init__(metric=IMAGES, mode="max")
        self.ledger = ledger
        self.numbers: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Give Ray nothing to pickle: it stores its tuners, and the ledger holds threads and connections."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Accept Ray's call; the ledger knows the objectives and the space."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is text
        """Return the next configuration, or that there is none now (None) or ever."""
        configuration = self.ledger.next_configuration()
        if configuration is None:
            return None if self.ledger.may_have_more else Searcher.FINISHED
        self.numbers[trial_id] = configuration.number
        return {CONFIGURATION: configuration.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tell the ledger how a trial ended."""
        number = self.numbers.pop(trial_id, None)
        if number is None:
            return
        if error or result is None:
            self.ledger.failed(number, self.reasons.pop(trial_id, ""))
        elif result.get(IS_FINAL):
            self.ledger.completed(number, dict(result[METRICS]))
        else:
            self.ledger.halted(number, result[IMAGES])

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class LedgerScheduler(FIFOScheduler):
    """Halt a trial when the ledger says so, and end a failing one without a second try.

    To Ray a trial that halts has ended. One that is only paused comes back as another of Ray's trials, on
    whatever worker has room, and finds its checkpoint in the study's folder.

    Ray restarts a trial whose worker was lost and one that raised alike. A trial that raised would only raise
    again, so it announces its failure in one last result, upon which its restarts are taken away.

    Ray gives a worker that has become free to the trial that waits longest, and ends for it the start of the
    worker which that trial has waited for: of trials shorter than such a start, a machine that has come later
    would get none. So a trial keeps what is being started for it, and the free worker gets another one.
    """

    def __init__(self, searcher: LedgerSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self.waiting_since: dict[Trial, float] = {}
        self.offered: Trial | None = None
        self.last_taken = -math.inf

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the trial that should get the next free worker though one may be on its way, if any.

        It has waited for longer than a worker takes to start, as where there is no room for one, and the last
        one that was chosen is as long ago: in a long queue the start of a worker on a new machine may be for
        just the oldest. Trials that nothing is started for yet are none of this method's: Ray gives them what
        is free, or has a worker started.
        """
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        now = time.monotonic()
        self.waiting_since = {trial: self.waiting_since.get(trial, now) for trial in waiting}
        if self.offered is not None and self.offered not in self.waiting_since:
            self.last_taken = now
        oldest = min(waiting, key=self.waiting_since.__getitem__, default=None)
        is_due = oldest is not None and now - max(self.waiting_since[oldest], self.last_taken) > MAX_START_S
        self.offered = oldest if is_due else None
        return self.offered

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        """Decide after a report that is not the trial's last."""
        if FAILED in result:
            self.searcher.reasons[trial.trial_id] = result[FAILED]
            trial.max_failures = 0
            return TrialScheduler.CONTINUE
        number = self.searcher.numbers[trial.trial_id]
        goes_on = self.searcher.ledger.reported(number, result[IMAGES], dict(result[METRICS]))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class ForgiveLostMachines(Callback):
    """Let lost machines, and workers that were told to end, not count among a trial's lost workers.

    Neither was the trial's doing.

    Args:
        searcher: Knows the trials by Ray's names.
    """

    def __init__(self, searcher: LedgerSearcher) -> None:
        self.searcher = searcher
        self.n_forgiven: Counter[str] = Counter()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Take back what Ray has counted."""
        if trial.error_file is None or self.n_forgiven[trial.trial_id] >= MAX_FORGIVEN:
            return
        number = self.searcher.numbers.get(trial.trial_id)
        is_preempted = number is not None and self.searcher.ledger.is_preempted(number)
        *_, last = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").split("Failure # ")
        if is_preempted or any(words in last for words in MACHINE_LOST):
            self.n_forgiven[trial.trial_id] += 1
            trial.run_metadata.num_failures -= 1
