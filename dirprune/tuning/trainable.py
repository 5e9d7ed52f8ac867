"""A trial as Ray Tune runs it: one report per step, on a worker that is used for trial after trial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from ray import tune

from dirprune.preemption import Preemption
from dirprune.records.folder import StudyFolder
from dirprune.study.space import Configuration
from dirprune.trial import (
    TrialContext,
    TrialReport,
    Workbench,
    describe_failure,
    make_final_bench,
    run_trial,
)
from dirprune.tuning.crew import RayCrew
from dirprune.tuning.gpu_share import choose_device, count_own_gpus, keep_to_share
from dirprune.tuning.machines import cannot_see
from dirprune.tuning.own_methods import OwnMethods
from dirprune.tuning.reports import CONFIGURATION, FAILED, IMAGES, IS_FINAL, METRICS


class TrialFailedError(Exception):
    """A trial that raised; the reason is in its events already."""


class PruningTrainable(tune.Trainable):
    """Run trials from their configurations; data, dense network and groups stay from trial to trial."""

    def setup(
        self,
        config: dict[str, Any],
        context: TrialContext | None = None,
        methods: OwnMethods | None = None,
    ) -> None:
        """Keep what the shared parts are made of: they are made in a step, where a failure is heard."""
        self.context, self.methods = context, methods or OwnMethods()
        self.bench: Workbench | None = None
        self.preemption = Preemption()
        self.preemption.listen()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial."""
        self.configuration = Configuration.from_json(new_config[CONFIGURATION])
        self.reports: Iterator[TrialReport] | None = None
        self.failure: Exception | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial up to its next report."""
        if self.failure is not None:
            raise TrialFailedError(str(self.failure)) from self.failure
        try:
            report = next(self._open())
        except Exception as error:  # whatever a trial raises ends that trial alone
            self.failure = error
            return {FAILED: describe_failure(error)}
        return {
            IMAGES: report.images,
            METRICS: list(report.metrics.items()),  # Ray flattens mappings
            IS_FINAL: report.is_final,
            "done": report.is_final,
        }

    def _open(self) -> Iterator[TrialReport]:
        if self.bench is None:
            assert self.context is not None
            check_sight(self.context)
            self.methods.register()
            torch.set_num_threads(self.context.threads)
            share = count_own_gpus()
            keep_to_share(share)
            device = choose_device(share)
            crew = RayCrew(self.context, device) if self.context.n_workers > 1 else None
            self.bench = Workbench(self.context, self.preemption, crew, device)
        if self.reports is None:
            self.reports = self._run(self.bench)
        return self.reports

    def _run(self, bench: Workbench) -> Iterator[TrialReport]:
        return run_trial(bench, self.configuration)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: a trial keeps its own checkpoints in the study's folder."""

    def load_checkpoint(self, checkpoint: dict | None) -> None:
        """Load nothing: a trial finds its own checkpoint."""


def check_sight(context: TrialContext) -> None:
    """Refuse to work where the study's files are not seen: what a trial leaves there would be lost.

    Machines may join a cluster long after `check_machines` has asked those that were there.

    Raises:
        StudyError: Naming this machine.
    """
    if context.remote is None and not StudyFolder(context.folder).study_json.exists():
        raise cannot_see(context.folder)


class FinalistTrainable(PruningTrainable):
    """Train finalists: trials once more, in further seeds, with another resource, in folders of their own."""

    def setup(
        self,
        config: dict[str, Any],
        context: TrialContext | None = None,
        methods: OwnMethods | None = None,
        epochs: float = 0.0,
    ) -> None:
        """Keep the resource beside the shared parts."""
        self.epochs = epochs
        super().setup(config, context, methods)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another training."""
        payload = dict(new_config[CONFIGURATION])
        self.repetition = payload.pop("repetition")
        return super().reset_config({CONFIGURATION: payload})

    def _run(self, bench: Workbench) -> Iterator[TrialReport]:
        final = make_final_bench(bench, self.configuration.number, self.repetition, self.epochs)
        return run_trial(final, self.configuration, self.repetition)
