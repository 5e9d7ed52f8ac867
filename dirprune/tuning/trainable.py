"""A trial as Ray Tune runs it: one report per step, on a worker that is used for trial after trial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from ray import tune

from dirprune.study.space import Configuration
from dirprune.trial import TrialContext, TrialReport, Workbench, run_trial
from dirprune.tuning.searcher import CONFIGURATION, FAILED, IMAGES, IS_FINAL, METRICS


class TrialFailedError(Exception):
    """A trial that raised; the reason is in its events already."""


class PruningTrainable(tune.Trainable):
    """Run trials from their configurations; data, dense network and groups stay from trial to trial."""

    def setup(self, config: dict[str, Any], context: TrialContext | None = None) -> None:
        """Make the worker's shared parts."""
        assert context is not None
        torch.set_num_threads(context.threads)
        self.bench = Workbench(context)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial."""
        self.reports: Iterator[TrialReport] = run_trial(
            self.bench, Configuration.from_json(new_config[CONFIGURATION])
        )
        self.failure: Exception | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial up to its next report."""
        if self.failure is not None:
            raise TrialFailedError(str(self.failure)) from self.failure
        try:
            report = next(self.reports)
        except Exception as error:  # whatever a trial raises ends that trial alone
            self.failure = error
            return {FAILED: True}
        return {
            IMAGES: report.images,
            METRICS: list(report.metrics.items()),  # Ray flattens mappings
            IS_FINAL: report.is_final,
            "done": report.is_final,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: a trial keeps its own checkpoints in the study's folder."""

    def load_checkpoint(self, checkpoint: dict | None) -> None:
        """Load nothing: a trial finds its own checkpoint."""
