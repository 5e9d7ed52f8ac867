"""Optuna's storage: the truth about a study's trials, their states, parameters and final objectives."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from dirprune.addresses import describe_address
from dirprune.errors import StudyError
from dirprune.files import read_json
from dirprune.records.ending import write_ending
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.formatting import format_metric
from dirprune.records.mirror import open_folder, remove
from dirprune.records.record import ABANDONED, TrialRecord, make_record
from dirprune.study import floor
from dirprune.study.floor import Floor
from dirprune.study.objectives import read_objectives
from dirprune.study.observer import StudySummary
from dirprune.study.space import Configuration
from dirprune.tuning.database import DatabaseStorage
from dirprune.tuning.journal import StudyJournal

STUDY_SCHEMA = 1

SOURCE = "source"
ARCHITECTURE = "architecture"
CONFIGURATION = "configuration"
COSTS = "costs"
ADOPTABLE = "adoptable"
INFEASIBLE = "infeasible"
STOPPED_AT = "stopped_at"
PAUSED_AT = "paused_at"
REASON = "reason"
RUNG = "rung:"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class JournalStorage(optuna.storages.JournalStorage):
    """Optuna's storage in a journal file whose writes can be held together."""

    def __init__(self, path: Path) -> None:
        self.journal = StudyJournal(path)
        self._unsettled: dict[int, list[int]] = {}  # by study: ids of trials that were not settled when seen
        self._n_seen: Counter[int] = Counter()
        super().__init__(self.journal)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials; those that wait or run without going through all that are settled for ever.

        Optuna looks for waiting ones at every `ask`.
        """
        if states is None or any(state in states for state in TrialState if state.is_finished()):
            return super().get_all_trials(study_id, deepcopy, states)
        unsettled = self._unsettled.setdefault(study_id, [])
        with suppress(KeyError):  # where there are no more
            while True:
                unsettled.append(
                    self.get_trial_id_from_study_id_trial_number(study_id, self._n_seen[study_id])
                )
                self._n_seen[study_id] += 1
        trials = [trial for trial in map(self.get_trial, unsettled) if not trial.state.is_finished()]
        self._unsettled[study_id] = [trial._trial_id for trial in trials]
        found = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


@contextmanager
def hold_study(folder: StudyFolder) -> Iterator[None]:
    """Hold the study's lock: one driver at a time, and the lock ends with its process.

    Raises:
        StudyError: If another driver holds it; names its host and process.
    """
    lock = filelock.FileLock(folder.lock)
    owner = folder.lock.with_suffix(".owner")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        holder = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
        raise StudyError(
            f"study {folder.root.name} is being driven by {holder}; wait for it, or give another --name"
        ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def open_storage(folder: StudyFolder, url: str = "") -> optuna.storages.BaseStorage:
    """Open the study's journal file, or a relational database where a URL is given.

    Raises:
        StudyError: If the database's URL cannot be read or it cannot be opened; a password in the URL is not
            repeated.
    """
    if not url:
        return JournalStorage(folder.journal)
    locate(url)
    try:
        return DatabaseStorage(url, describe_url(url))
    except Exception as error:  # drivers raise their own types, SQLAlchemy's among them
        raise StudyError(
            f"expected an Optuna storage at {describe_url(url)}, got {type(error).__name__}; "
            "check its host, name and password"
        ) from None


def describe_url(url: str) -> str:
    """Return, to be shown, where trials are kept: "journal", or a database without login and options."""
    return describe_address(url).partition("?")[0] or "journal"


def locate(url: str) -> str:
    """Return, to be stored, where trials are kept: "journal", or a database's kind, host, port and name.

    Raises:
        StudyError: If SQLAlchemy cannot read the URL.
    """
    if not url:
        return "journal"
    try:
        parts = make_url(url)
    except (ValueError, ArgumentError):  # the text of either may hold the password
        raise StudyError(
            f"expected an Optuna storage such as postgresql://USER@HOST:PORT/NAME, got "
            f"{describe_url(url)}, which SQLAlchemy cannot read; write special characters of a password as "
            "%40 for @, or give it in PGPASSWORD or ~/.pgpass, and several hosts as options "
            "(?host=H1:5432&host=H2:5432)"
        ) from None
    host = f"[{parts.host}]" if ":" in (parts.host or "") else parts.host or ""
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.drivername}://{host}{port}{'' if parts.database is None else f'/{parts.database}'}"


def check_place(folder: StudyFolder, stored: str, url: str) -> None:
    """Return when a study's trials are kept where a URL says.

    Earlier studies stored what follows the URL's last "@", without options, or dots where that was in doubt:
    there the study's name in the database, which no other has, decides alone.

    Raises:
        StudyError: If they are kept elsewhere.
    """
    scheme, mark, rest = url.partition("://")
    earlier = (f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}", f"{scheme}://...")
    if stored != locate(url) and not (mark and stored in earlier):
        raise StudyError(
            f"the trials of study {folder.root.name} are kept in {stored}, "
            f"got {describe_url(url)}; give a database with --optuna-storage URL or in "
            "DIRPRUNE_OPTUNA_STORAGE, a journal without"
        )


def load_study(folder: StudyFolder, payload: Mapping[str, Any], storage_url: str = "") -> optuna.Study:
    """Open a study that exists, without writing anything.

    Args:
        folder: The study's folder.
        payload: Content of its `study.json`.
        storage_url: URL of its database; empty: its journal.

    Raises:
        StudyError: If its trials are not there, or are kept elsewhere.
    """
    check_place(folder, payload["storage"], storage_url)
    if not storage_url and not folder.journal.exists():
        raise StudyError(
            f"expected the trials of study {folder.root.name} in {folder.journal}, found no file"
        )
    opened = open_storage(folder, storage_url)
    try:
        return optuna.load_study(storage=opened, study_name=payload["optuna_study"])
    except KeyError as error:
        _close(opened)
        raise StudyError(
            f"expected study {payload['optuna_study']} in {payload['storage']}, found none; was it deleted?"
        ) from error


@contextmanager
def opened_study(
    folder: StudyFolder, payload: Mapping[str, Any], storage_url: str = ""
) -> Iterator[optuna.Study]:
    """Yield a study as `load_study` opens it; a database has its connections back afterwards."""
    study = load_study(folder, payload, storage_url)
    try:
        yield study
    finally:
        _close(study._storage)


def _close(opened: optuna.storages.BaseStorage) -> None:
    """Give a database its connections back."""
    if isinstance(opened, DatabaseStorage):
        opened.close()


def create_study(folder: StudyFolder, payload: Mapping[str, Any], storage_url: str = "") -> optuna.Study:
    """Create a new study in its storage.

    A journal of an earlier start that did not come to its `study.json` is no study's: it goes.
    """
    if not storage_url:
        folder.journal.unlink(missing_ok=True)
    directions = [direction for _, direction in payload["description"]["objectives"]]
    return optuna.create_study(
        storage=open_storage(folder, storage_url), study_name=payload["optuna_study"], directions=directions
    )


def heal_journal(folder: StudyFolder) -> None:
    """Cut off the journal a line that a killed driver or a full disk left unfinished; for a lock's holder.

    Optuna reads past such a line but would write on behind it, and could then never read the journal again.
    """
    if not folder.journal.exists():
        return
    with folder.journal.open("rb+") as journal:
        whole = end = journal.seek(0, os.SEEK_END)
        while whole > 0:
            start = max(0, whole - 65_536)
            journal.seek(start)
            newline = journal.read(whole - start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        if whole < end:
            journal.truncate(whole)


def find_pause(trial: FrozenTrial) -> int | None:
    """Return the training images after which a trial is paused at a rung; None if it is not.

    A pause is written before what was reported there: a driver that was killed in between has not heard of
    it, and the trial reports once more.
    """
    images = trial.user_attrs.get(PAUSED_AT) if trial.state == TrialState.RUNNING else None
    return images if f"{RUNG}{images}" in trial.user_attrs else None


def find_violations(trial: FrozenTrial) -> dict[str, float]:
    """Return by how much a trial is above limits of cost or below the least accuracy, by metric."""
    return {metric: value for metric, value in sorted(trial.constraints.items()) if value > 0}


def _describe_violations(violations: Mapping[str, float]) -> str:
    """Return why a trial is not acceptable."""
    return "; ".join(
        f"{metric} is {format_metric(metric, value)} "
        + ("below the least" if metric == floor.METRIC else "above the limit")
        for metric, value in violations.items()
    )


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether the trial was refused by a limit before it started."""
    return bool(trial.user_attrs.get(INFEASIBLE, False))


def make_trial_record(folder: StudyFolder, trial: FrozenTrial, metrics: Sequence[str]) -> TrialRecord:
    """Join a trial of the storage with its events.

    The dense network has no method and no options: nothing of it is scored, pruned or fine-tuned. Its
    configuration has some, as Optuna asks for them.

    Args:
        folder: The study's folder.
        trial: As the storage has it; its final objectives are the ones that count.
        metrics: The objectives' metrics, in order.
    """
    attributes = trial.user_attrs
    payload = attributes.get(CONFIGURATION)
    configuration = Configuration.from_json(payload) if payload else None
    chosen = None if configuration is None or configuration.source == "dense" else configuration
    reason = None  # attributes of an ending that its driver did not live to tell do not count
    violations = find_violations(trial) if trial.state == TrialState.COMPLETE else {}
    if trial.state == TrialState.PRUNED:
        reason = f"stopped at {attributes[STOPPED_AT]} images"
    elif (paused_at := find_pause(trial)) is not None:
        reason = f"paused at {paused_at} images"
    elif trial.state == TrialState.FAIL:
        reason = attributes.get(REASON)
    elif violations:
        reason = _describe_violations(violations)
    record = make_record(
        replay(read_events(folder.events(trial.number))),
        number=trial.number,
        state=trial.state.name,  # type: ignore[arg-type]  # Optuna's names are ours
        source=attributes.get(SOURCE, "sampler"),
        architecture=configuration.architecture if configuration else {},
        method=chosen.method if chosen else "",
        options=_flatten_options(chosen) if chosen else {},
        metrics=attributes.get(COSTS, {}),
        reason=reason,
    )
    if trial.datetime_complete is not None:
        record = replace(record, ended_at=trial.datetime_complete.timestamp())
    if trial.values is None:
        return replace(record, is_paused=find_pause(trial) is not None)
    known = {**record.metrics, **dict(zip(metrics, trial.values, strict=True))}
    return replace(record, metrics=known, is_acceptable=not violations)


def _flatten_options(configuration: Configuration) -> dict[str, Any]:
    """Return options and hyperparameters by the names that they have in the storage."""
    options = {f"{configuration.method}.{name}": v for name, v in configuration.method_options.items()}
    return options | {f"fine_tuning.{name}": v for name, v in configuration.fine_tuning.items()}


def read_study_json(folder: StudyFolder) -> dict[str, Any]:
    """Read what the study is.

    Raises:
        StudyError: If there is no study in the folder.
    """
    if not folder.study_json.exists():
        raise StudyError(
            f"expected a study in {folder.root}, found no {folder.study_json.name}; give <output>/<study>"
        )
    return read_json(folder.study_json, schema=STUDY_SCHEMA)


def make_summary(
    folder: StudyFolder, payload: Mapping[str, Any], n_trials: int, resumed: bool
) -> StudySummary:
    """Return what observers are told of a study.

    Args:
        folder: The study's folder.
        payload: Content of its `study.json`.
        n_trials: Total of trials to start.
        resumed: Whether it goes on from an earlier run.
    """
    description = payload["description"]
    objectives = read_objectives(description)
    text = description.get("min_val_accuracy")
    least = None if text is None else Floor.resolve(text, objectives, payload["dense"]["metrics"])
    reference_point = description["reference_point"]
    return StudySummary(
        name=payload["name"],
        study_id=payload["id"],
        folder=folder,
        objectives=objectives,
        reference_point=reference_point if least is None else least.raised(reference_point),
        dense_costs={name: float(value) for name, value in payload["dense_costs"].items()},
        n_channels=description["groups"],
        n_trials=n_trials,
        seed=description["seed"],
        description={
            key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()
        },
        resumed=resumed,
        floor=least,
    )


def read_records(folder: StudyFolder, storage_url: str = "") -> list[TrialRecord]:
    """Read every trial that was started, from Optuna's storage and the events.

    Raises:
        StudyError: If there is no study in the folder.
    """
    payload = read_study_json(folder)
    metrics = [metric for metric, _ in payload["description"]["objectives"]]
    with opened_study(folder, payload, storage_url) as study:
        trials = study.get_trials(deepcopy=False)
    return [
        make_trial_record(folder, trial, metrics)
        for trial in trials
        if trial.state != TrialState.WAITING and not is_infeasible(trial)
    ]


def abandon(folder: StudyFolder, storage_url: str = "") -> list[int]:
    """End the trials that nobody will continue: FAIL with the reason `abandoned`; paused ones are stopped.

    Returns:
        Their numbers.

    Raises:
        StudyError: If there is no study in the folder, or a driver is at work on it.
    """
    payload = read_study_json(folder)
    with hold_study(folder):
        heal_journal(folder)
        with opened_study(folder, payload, storage_url) as study:
            trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            for frozen in trials:
                if (paused_at := find_pause(frozen)) is not None:
                    settle(study, frozen.number, TrialState.PRUNED, {STOPPED_AT: paused_at})
                else:
                    settle(study, frozen.number, TrialState.FAIL, {REASON: ABANDONED})
                shared = open_folder(folder.root, payload.get("shared", ""))
                remove(shared, folder.checkpoint_dir(frozen.number))
        if trials:
            write_ending(folder)
    return [trial.number for trial in trials]


def continue_trial(study: optuna.Study, frozen: FrozenTrial) -> optuna.trial.Trial:
    """Return a trial of the storage as one that can be asked and told; Optuna has no public way for this."""
    return optuna.trial.Trial(study, frozen._trial_id)


def write_together(whose: optuna.trial.Trial | optuna.Study) -> AbstractContextManager[None]:
    """Return the context in which all that is written of a trial or study reaches the journal at its end.

    A database writes as it always does.
    """
    storage = whose._storage if isinstance(whose, optuna.Study) else whose.storage
    return storage.journal.batch() if isinstance(storage, JournalStorage) else nullcontext()


def read_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return a trial as the storage has it without looking at the others; Optuna has no public way for it."""
    trials = study._storage
    return trials.get_trial(trials.get_trial_id_from_study_id_trial_number(study._study_id, number))


def settle(
    study: optuna.Study,
    number: int,
    state: TrialState,
    attributes: dict[str, Any],
    values: Sequence[float] | None = None,
) -> None:
    """Give a trial its attributes, then its final state: a driver that ends in between leaves it RUNNING."""
    trial = continue_trial(study, read_trial(study, number))
    with write_together(trial):
        for name, value in {**attributes, ADOPTABLE: False}.items():
            trial.set_user_attr(name, value)
        study.tell(trial, values=list(values) if values is not None else None, state=state)


def plain(value: Any) -> Any:
    """Return a value as it is after a round through JSON, for comparing with what was stored."""
    return json.loads(json.dumps(value))
