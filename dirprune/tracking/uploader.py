"""One study's runs, files and models, sent to MLflow: shared by a study that runs and by one that is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from dirprune.errors import DirpruneError, NotGivenError, TrackingError
from dirprune.records.finalists import FinalTraining
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking import names
from dirprune.tracking.front_models import log_model
from dirprune.tracking.server import default_tracking_uri
from dirprune.tracking.store import RemoteRun, RunKey, RunStore
from dirprune.tracking.views import Point, Status, view_study, view_training, view_trial

logger = logging.getLogger("dirprune.tracking")

FILES_EVERY_S = 60.0


class Uploader:
    """What is known to be in MLflow of one study, and the requests that bring it up to date.

    Not thread-safe. Every method may raise whatever MLflow raises, and can then be called again.

    Args:
        summary: The study.
        tracking_uri: Where; None = a SQLite file beside the studies.
        network: Function that makes the network before pruning, if it is a user's own; front models need it.
    """

    def __init__(
        self, summary: StudySummary, tracking_uri: str | None, network: Callable[[], nn.Module] | None
    ) -> None:
        self.summary = summary
        self.tracking_uri = tracking_uri or default_tracking_uri(summary.folder.output)
        self.network = network
        self.refused: list[str] = []
        self._store: RunStore | None = None
        self._study: RemoteRun | None = None
        self._runs: dict[RunKey, RemoteRun] = {}
        self._is_creating = False  # whether a request that creates a run may have been carried out unheard
        self._files: dict[str, float] = {}  # time of change of each uploaded file
        self._files_at = 0.0

    @property
    def store(self) -> RunStore:
        """The runs of this study; made by `connect`."""
        assert self._store is not None
        return self._store

    def connect(self, start_ms: int | None = None) -> None:
        """Open the store and find what is there of this study; create its run if there is none.

        Args:
            start_ms: Unix time in ms at which the study began; None: now.
        """
        if self._store is None:
            self._store = RunStore(self.tracking_uri, self.summary.folder.output, self.summary.study_id)
            self._is_creating = True
        if self._is_creating:
            study, others = self.store.find_runs()
            self._study = study or self._study
            self._runs = {**others, **self._runs}
            self._is_creating = False
        if self._study is None:
            view = replace(view_study(self.summary, "RUNNING", ()), start_ms=start_ms)
            self._is_creating = True
            self._study = self.store.create_run(view, parent=None)
            self._is_creating = False

    @property
    def n_models(self) -> int:
        """How many runs have their model in MLflow."""
        return sum(names.MODEL_ID in run.tags for run in self._runs.values())

    def check_alive(self) -> None:
        """Raise if the store does not answer."""
        assert self._study is not None
        self.store.client.get_run(self._study.run_id)

    def upload(self, key: RunKey, record: TrialRecord) -> None:
        """Bring the run of a trial, or of a finalist's training, up to date; create it if there is none.

        Raises:
            TrackingError: If the run of a finalist's trial is not there yet.
        """
        name, study_id = self.summary.name, self.summary.study_id
        if isinstance(key, int):
            view, parent = view_trial(record, name, study_id), self._study
        else:
            trial, repetition = key
            view = view_training(FinalTraining(record, repetition), record.is_front, name, study_id)
            parent = self._runs.get(trial)
            if parent is None:
                raise TrackingError(f"the run of trial {trial} is not there yet")
        run = self._runs.get(key)
        if run is None:
            self._is_creating = True
            run = self._runs[key] = self.store.create_run(view, parent)
            self._is_creating = False
        self.store.update_(run, view)

    def upload_study(
        self,
        points: Sequence[Point],
        front: Sequence[RunKey],
        ended: bool | None,
        has_failed: bool = False,
    ) -> None:
        """Bring the study's run up to date, now and then its files; in the end models and status.

        Args:
            points: Hypervolume, size of the front and counts so far.
            front: The trials on the front, and the trainings whose models are those of the final front.
            ended: Whether it was interrupted; None = it still runs.
            has_failed: Whether it has failed; see `StudyObserver.study_failed`.
        """
        assert self._study is not None
        view = view_study(self.summary, "RUNNING", points, is_paused=bool(ended))
        self.store.update_(self._study, view)
        if ended is not None or time.monotonic() > self._files_at + FILES_EVERY_S:
            self._upload_files()
            self._files_at = time.monotonic()
        if ended is False:
            self._upload_models(front)
            self.store.delete_doubles(self._study, self._runs)
        if has_failed or ended is False:
            self.store.update_(self._study, replace(view, status="FAILED" if has_failed else "FINISHED"))

    def complete(
        self,
        history: Sequence[Point],
        front: Sequence[RunKey],
        start_ms: int | None,
        end_ms: int | None,
        is_open: bool,
        has_failed: bool | None,
    ) -> None:
        """Bring the run of a study that nobody drives to what it should hold, with files and models.

        Where MLflow has a hypervolume or size of the front at a step, that one stays; the
        counts are replaced.

        Args:
            history: Hypervolume and size of the front after each finished trial, and the counts.
            front: As in `upload_study`.
            start_ms, end_ms: Unix times in ms.
            is_open: Whether trials are left that a driver would go on with.
            has_failed: Whether the study has failed; None: nobody knows, and of a study that is not open what
                MLflow says of it stays.
        """
        assert self._study is not None
        known = {(name, step) for name, step, _ in self._study.sent if name in ("hypervolume", "front_size")}
        points = [self._be_newest(point) for point in history if (point.name, point.step) not in known]
        n_trials = max(self.summary.n_trials, int(self._study.tags.get(names.N_TRIALS, 0)))
        summary = replace(self.summary, n_trials=n_trials)  # the total that was asked for is no record
        if has_failed is None:
            has_failed = self._study.status == "FAILED" and not is_open
        status: Status = "FAILED" if has_failed else "RUNNING" if is_open else "FINISHED"
        view = view_study(summary, status, points, is_paused=is_open)
        view = replace(view, start_ms=start_ms, end_ms=end_ms)
        self.store.update_(self._study, view, with_status=False)
        self._upload_files()
        self._upload_models(front)
        self.store.delete_doubles(self._study, self._runs)
        self.store.update_(self._study, view)

    def _be_newest(self, point: Point) -> Point:
        """Return a point that is newer than all that are known of its count: the records know better."""
        assert self._study is not None
        newest = self._study.counts.get(point.name)
        return point if newest is None else replace(point, time_ms=max(point.time_ms, newest.time_ms + 1))

    def _upload_files(self) -> None:
        assert self._study is not None
        folder = self.summary.folder
        for path in folder.views:
            if path.is_file() and self._files.get(path.name) != (changed := path.stat().st_mtime):
                self.store.log_file(self._study, path)
                self._files[path.name] = changed

    def _upload_models(self, front: Sequence[RunKey]) -> None:
        """Log the models of the front; one that cannot be made into an MLflow model is named and left."""
        study = self.summary.folder
        for key in front:
            trial, repetition = (key, None) if isinstance(key, int) else key
            what = f"trial {trial}" if repetition is None else f"finalist {trial}, seed {repetition}"
            run = self._runs.get(key)
            if run is None or names.MODEL_ID in run.tags or f"the model of {what}" in self.refused:
                continue
            folder = (study if repetition is None else study.finalist(trial, repetition)).model_dir(trial)
            try:
                log_model(self.store.client, self.store.experiment_id, run, folder, self.network)
            except DirpruneError as error:  # no later attempt can do better
                if not isinstance(error.__cause__, NotGivenError):  # one reason for all: the caller's to say
                    logger.warning("the model of %s was not logged: %s", what, error)
                self.refused.append(f"the model of {what}")
                if folder.is_dir():
                    self.store.client.log_artifacts(run.run_id, str(folder), names.MODEL)
