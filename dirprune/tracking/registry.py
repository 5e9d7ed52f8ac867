"""A study's front as versions of a registered model, which MLflow serves by name.

| on | name | value |
|---|---|---|
| version | tags dirprune.study, dirprune.study_id, dirprune.trial | where it comes from |
| version | tag of each objective's metric, its test metric, macs, parameters, latency_ms | numbers as text |
| model | alias most-accurate | best in the first objective of validation |
| model | alias smallest | fewest MACs |
| model | alias knee | farthest below the line between the front's ends |

Of a study with finalists their final front is registered: means over the seeds, and the best seed's network.
Several studies may share a registered model; its aliases are those of the study that registered last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dirprune.addresses import describe_address
from dirprune.cost import COST_METRICS, LATENCY
from dirprune.errors import ConfigurationError, TrackingError, one_line
from dirprune.records.finalists import Finalist
from dirprune.records.front import find_member, sort_front
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking import names
from dirprune.tracking.server import is_remote
from dirprune.tracking.store import RemoteRun, RunKey, RunStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIASES = {"best": "most-accurate", "smallest": "smallest", "knee": "knee"}
_NAME = re.compile(r"[A-Za-z0-9][\w .-]{0,249}", flags=re.ASCII)


def check_model_name(name: str) -> None:
    """Refuse a name under which no model can be registered, or that would read as a path.

    Raises:
        ConfigurationError: If it is one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "--register: expected a name of letters, digits, spaces and . _ - that begins with a letter or "
            f"digit, got {name!r}; try 'lenet'"
        )


def register_front(
    summary: StudySummary,
    tracking_uri: str,
    name: str,
    records: Sequence[TrialRecord],
    finalists: Sequence[Finalist] = (),
) -> tuple[int, list[str]]:
    """Register the models of a front that are in MLflow; versions that are there already stay.

    Args:
        summary: The study.
        tracking_uri: Where its runs and models are.
        name: Of the registered model; made if there is none.
        records: The study's trials with `is_front` set.
        finalists: Its finalists with `is_front` set, if any were trained.

    Returns:
        How many members of the front are registered, and in words those whose models are missing.

    Raises:
        ConfigurationError: If no model can have that name.
        TrackingError: If MLflow fails; the same call can be repeated.
    """
    check_model_name(name)
    front: list[tuple[RunKey, TrialRecord]] = [(record.number, record) for record in sort_front(records)]
    if final := [finalist for finalist in finalists if finalist.record.is_front]:
        front = [((finalist.record.number, finalist.best), finalist.record) for finalist in final]
    try:
        store = RunStore(tracking_uri, summary.folder.output, summary.study_id)
        return _register(store, summary, name, front)
    except Exception as error:  # whatever MLflow, its databases and sockets raise
        said = one_line(error, has_type=True, address=tracking_uri)
        raise TrackingError(
            f"the models cannot be registered as {name!r} at {describe_address(tracking_uri)}: {said}; "
            f"try dirprune sync {summary.folder.root} --register {name!r} --tracking-uri URI later"
        ) from error


def _register(
    store: RunStore, summary: StudySummary, name: str, front: Sequence[tuple[RunKey, TrialRecord]]
) -> tuple[int, list[str]]:
    from mlflow.exceptions import MlflowException

    client = store.client
    _, runs = store.find_runs()
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        model = client.create_registered_model(name, description="Pareto front of a dirprune study")
    known = {version.run_id: version for version in client.search_model_versions(f"name = '{name}'")}
    versions: dict[int, str] = {}
    missing = []
    for key, record in front:
        run = runs.get(key)
        if run is None or names.MODEL_ID not in run.tags:
            missing.append(f"the model of trial {record.number}")
            continue
        tags = _describe(record, summary)
        versions[record.number] = _version(client, name, run, tags, known.get(run.run_id))
    registered = [record for _, record in front if record.number in versions]
    for which, alias in ALIASES.items() if registered else ():
        version = versions[find_member(registered, summary.objectives, which).number]
        if str(model.aliases.get(alias)) != version:
            client.set_registered_model_alias(name, alias, version)
    return len(versions), missing


def _version(
    client: MlflowClient, name: str, run: RemoteRun, tags: dict[str, str], known: ModelVersion | None
) -> str:
    """Return the version of a run's model, made if there is none, with its tags up to date."""
    if known is None:
        model_id = run.tags[names.MODEL_ID]
        source = f"models:/{model_id}"
        if not is_remote(client.tracking_uri):  # MLflow would look for it in the store of this process
            source = client.get_logged_model(model_id).artifact_location
        known = client.create_model_version(name, source, run_id=run.run_id, model_id=model_id, tags=tags)
        return str(known.version)
    for key, text in tags.items():
        if known.tags.get(key) != text:
            client.set_model_version_tag(name, str(known.version), key, text)
    return str(known.version)


def _describe(record: TrialRecord, summary: StudySummary) -> dict[str, str]:
    """Return the tags of a member of the front."""
    objectives = [objective.metric for objective in summary.objectives]
    tests = [metric.replace("val_", "test_", 1) for metric in objectives if metric.startswith("val_")]
    wanted = dict.fromkeys((*objectives, *tests, *COST_METRICS, LATENCY))
    numbers = {metric: f"{record.metrics[metric]:.12g}" for metric in wanted if metric in record.metrics}
    return {
        names.STUDY: names.cut(summary.name, names.MAX_TAG),
        names.STUDY_ID: summary.study_id,
        names.TRIAL: str(record.number),
        **numbers,
    }
