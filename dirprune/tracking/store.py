"""Runs in MLflow brought to what they should hold, with as few requests as that takes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dirprune.addresses import describe_address
from dirprune.errors import TrackingError
from dirprune.study.objectives import Objective
from dirprune.tracking import names
from dirprune.tracking.server import default_tracking_uri, is_in_default_store, is_remote, open_client
from dirprune.tracking.views import Point, RunView

if TYPE_CHECKING:
    from mlflow.entities import Run


logger = logging.getLogger("dirprune.tracking")

RunKey = int | tuple[int, int]
"""Which run of a study: of a trial, by its number; of a finalist's training, by trial and repetition."""


@dataclass
class RemoteRun:
    """What is known to be in MLflow of one run; updated with each request that succeeded."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    sent: set[tuple[str, int, float | str]] = field(default_factory=set)  # metric, step, value
    counts: dict[str, Point] = field(default_factory=dict)  # the newest of those that change at one step


class RunStore:
    """The runs of one study in one tracking store.

    Args:
        tracking_uri: Where.
        output: Folder under which artifacts lie if no server decides that.
        study_id: Id of the study, by which its runs are found again.
    Raises:
        Exception: Here and in every method, whatever MLflow raises; a failed call can be repeated.
    """

    def __init__(self, tracking_uri: str, output: Path, study_id: str) -> None:
        self.client = open_client(tracking_uri)
        self.study_id = study_id
        self.experiment_id = self._obtain_experiment(tracking_uri, output)

    def _obtain_experiment(self, tracking_uri: str, output: Path) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(names.EXPERIMENT)
        if found is None:
            location = None if is_remote(tracking_uri) else (output.resolve() / "mlartifacts").as_uri()
            try:
                return self.client.create_experiment(
                    names.EXPERIMENT, artifact_location=location, tags=names.EXPERIMENT_TAGS
                )
            except MlflowException:  # another study's driver was faster
                found = self.client.get_experiment_by_name(names.EXPERIMENT)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def find_runs(self) -> tuple[RemoteRun | None, dict[RunKey, RemoteRun]]:
        """Return the study's run and the others by key, one each."""
        study: RemoteRun | None = None
        others: dict[RunKey, RemoteRun] = {}
        for run in self._search():
            key = _run_key(run)
            if key is None:
                study = study or self._remember(run)
            elif key not in others:
                others[key] = self._remember(run)
        return study, others

    def delete_doubles(self, study: RemoteRun, others: Mapping[RunKey, RemoteRun]) -> None:
        """Delete runs beside the given ones: left by requests that were carried out but not answered.

        Where we may edit and not delete, they are taken out of the study instead.
        """
        from mlflow.exceptions import MlflowException

        known = {run.run_id for run in (study, *others.values())}
        for run in list(self._search()):
            key = _run_key(run)
            if run.info.run_id in known or (key is not None and key not in others):
                continue
            try:
                self.client.delete_run(run.info.run_id)
            except MlflowException as error:
                if error.error_code != "PERMISSION_DENIED":
                    raise
                self._set_aside(run)

    def _set_aside(self, run: Run) -> None:
        """Take a run out of its study, its id last: until then it is found and tried again."""
        run_id = run.info.run_id
        self.client.set_tag(run_id, names.KIND, names.DOUBLE)
        self.client.set_terminated(run_id, status="KILLED")
        for name in (names.PARENT, names.STUDY_ID):
            if name in run.data.tags:
                self.client.delete_tag(run_id, name)
        logger.warning(
            "the run %s was made twice and may not be deleted by this user; it is marked %s = %s",
            run_id,
            names.KIND,
            names.DOUBLE,
        )

    def _search(self) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                f"tags.`{names.STUDY_ID}` = '{self.study_id}'",
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _remember(self, run: Run) -> RemoteRun:
        known = RemoteRun(run.info.run_id, run.info.status, dict(run.data.tags), set(run.data.params))
        goes_on = known.status == "RUNNING" or (known.status == "FAILED" and names.STAGE in known.tags)
        if goes_on or names.TRIAL not in known.tags:
            for name in run.data.metrics:
                history = self.client.get_metric_history(known.run_id, name)
                known.sent.update(_key(name, metric.step, metric.value) for metric in history)
                if name in names.CHANGING_COUNTS:
                    newest = max(history, key=lambda metric: (metric.step, metric.timestamp))
                    known.counts[name] = Point(name, newest.value, newest.step, newest.timestamp)
        return known

    def create_run(self, view: RunView, parent: RemoteRun | None) -> RemoteRun:
        """Create the run of a view, without its metrics."""
        tags = dict(view.tags)
        if parent is not None:
            tags[names.PARENT] = parent.run_id
        run = self.client.create_run(
            self.experiment_id,
            start_time=view.start_ms,
            tags=tags,
            run_name=names.cut(view.name, names.MAX_NAME),
        )
        return RemoteRun(run.info.run_id, run.info.status, tags)

    def update_(self, run: RemoteRun, view: RunView, with_status: bool = True) -> None:
        """Bring a run to what it should hold; its status last, so that an ended run is a complete one.

        Args:
            run: What is known of it.
            view: What it should hold.
            with_status: Whether its status and its end are meant as well.
        """
        is_settled = run.status == view.status != "RUNNING" and names.TRIAL in view.tags
        self._send(
            run,
            [(name, text) for name, text in view.parameters.items() if name not in run.parameters],
            [(name, text) for name, text in view.tags.items() if run.tags.get(name) != text],
            [] if is_settled else _list_unsent(run, view.points),
        )
        if with_status and run.status != view.status:
            if view.status == "RUNNING":
                self.client.update_run(run.run_id, status="RUNNING")
            else:
                self.client.set_terminated(run.run_id, status=view.status, end_time=view.end_ms)
            run.status = view.status

    def _send(
        self,
        run: RemoteRun,
        parameters: list[tuple[str, str]],
        tags: list[tuple[str, str]],
        points: list[Point],
    ) -> None:
        """Send what a run lacks in as few requests as MLflow's limits allow; usually that is one."""
        from mlflow.entities import Metric, Param, RunTag

        while parameters or tags or points:
            some_parameters = parameters[: names.MAX_PARAMETERS_PER_BATCH]
            some_tags = tags[: names.MAX_TAGS_PER_BATCH]
            some = points[: names.MAX_PER_BATCH - len(some_parameters) - len(some_tags)]
            now = round(time.time() * 1000)
            self.client.log_batch(
                run.run_id,
                metrics=[Metric(p.name, p.value, p.time_ms or now, p.step) for p in some],
                params=[Param(name, text) for name, text in some_parameters],
                tags=[RunTag(name, text) for name, text in some_tags],
            )
            run.parameters.update(name for name, _ in some_parameters)
            run.tags.update(some_tags)
            run.sent.update(_key(p.name, p.step, p.value) for p in some)
            run.counts.update((p.name, p) for p in some if p.name in names.CHANGING_COUNTS)
            del parameters[: len(some_parameters)], tags[: len(some_tags)], points[: len(some)]

    def log_file(self, run: RemoteRun, path: Path) -> None:
        """Store a file as an artifact of a run, in place of an older one of its name."""
        self.client.log_artifact(run.run_id, str(path))


def is_tracked(tracking_uri: str | None, output: Path, study_id: str) -> bool:
    """Whether a study has a run in a store: one that ran with --no-tracking has none.

    Args:
        tracking_uri: The store; None: the default one, if it is there.
        output: Folder of all studies.
        study_id: The study's own id.
    """
    if tracking_uri is None and not is_in_default_store(output, study_id):
        return False
    store = RunStore(tracking_uri or default_tracking_uri(output), output, study_id)
    return store.find_runs()[0] is not None


def _run_key(run: Run) -> RunKey | None:
    """Return which run it is; None for the study's own."""
    number, repetition = run.data.tags.get(names.TRIAL), run.data.tags.get(names.REPETITION)
    if number is None:
        return None
    return int(number) if repetition is None else (int(number), int(repetition))


def check_name(tracking_uri: str, name: str, objectives: Sequence[Objective], study_id: str | None) -> None:
    """Refuse a study whose name another study with other objectives has in a store; it writes nothing.

    Args:
        tracking_uri: The store.
        name: The study's name.
        objectives: What it trades.
        study_id: Its id; None for a study that has yet to begin.

    Raises:
        TrackingError: If there is such a study.
    """
    client = open_client(tracking_uri)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    if experiment is None:
        return
    wanted = ", ".join(map(str, objectives))
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], f"tags.`{names.KIND}` = 'study'", max_results=1000, page_token=token
        )
        for run in page:
            is_other = run.data.tags.get(names.STUDY_ID) != study_id
            found = run.data.params.get("objectives", wanted)
            if is_other and run.data.tags.get(names.STUDY) == name and found != wanted:
                place = describe_address(tracking_uri)
                raise TrackingError(
                    f"another study {name} with the objectives {found} is at {place}, "
                    f"got {wanted}; choose another --name or --tracking-uri, or delete that run"
                )
        token = page.token
        if not token:
            return


def _list_unsent(run: RemoteRun, points: Sequence[Point]) -> list[Point]:
    """Return what a run lacks: each point once, and of a count that changes at one step what is newer.

    MLflow takes the newest point of the last step for the metric's value.
    """
    unsent: dict[tuple[str, int, float | str], Point] = {}
    counts: list[Point] = []
    newest = dict(run.counts)
    for point in points:
        if point.name not in names.CHANGING_COUNTS:
            if (key := _key(point.name, point.step, point.value)) not in run.sent:
                unsent.setdefault(key, point)
            continue
        last = newest.get(point.name)
        is_newer = last is None or (point.step, point.time_ms) > (last.step, last.time_ms)
        if is_newer and (last is None or (point.step, point.value) != (last.step, last.value)):
            newest[point.name] = point
            counts.append(point)
    return [*unsent.values(), *counts]


def _key(name: str, step: int, value: float) -> tuple[str, int, float | str]:
    """Return what equal points share: nan does not equal itself, and stores keep inf as a large number."""
    if math.isnan(value):
        return name, step, "nan"
    return name, step, value if abs(value) < 1e308 else math.copysign(math.inf, value)
