"""Open a study: a new one where there is none, else the stored one, if it is the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirprune.data.store import is_uri
from dirprune.errors import ConfigurationError, StudyError
from dirprune.files import write_json
from dirprune.importance.base import Progress
from dirprune.records.folder import StudyFolder
from dirprune.remote import RemoteFolder
from dirprune.study.difference import find_differences, find_part
from dirprune.study.observer import StudyObserver
from dirprune.study.spec import StudySpec
from dirprune.tuning import storage
from dirprune.tuning.cluster import check
from dirprune.tuning.finalists import check_epochs
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.machines import check_machines
from dirprune.tuning.options import RunOptions
from dirprune.tuning.own_methods import OwnMethods, check_own_methods
from dirprune.tuning.preparation import Prepared
from dirprune.tuning.samplers import make_sampler
from dirprune.tuning.samplers.choice import Budget, choose_sampler
from dirprune.tuning.samplers.problem import StudyProblem
from dirprune.tuning.subject import Subject, describe_subject, find_subject

MAX_TEXT = 240


@dataclass(frozen=True)
class OpenedStudy:
    """A study that can be run here.

    Attributes:
        folder: Its files, and its part of the shared storage.
        study_id: Tells it from others of the same name.
        subject: Network, data and declaration.
    """

    folder: StudyFolder
    study_id: str
    subject: Subject


def open_study(
    spec: StudySpec, options: RunOptions, say: Callable[[str], None], progress: Progress | None = None
) -> OpenedStudy:
    """Find all that can be wrong with a study before anything is prepared, and make its folder.

    Args:
        spec: The study, as it was declared.
        options: Where and how.
        say: Takes the lines that a user should read.
        progress: Told how many layers are traced, and how many channel groups tried out.

    Raises:
        StudyError: If the study exists and was not to be continued, or differs from the stored one.
        DirpruneError: Of other kinds for data, weights and settings that cannot work.
    """
    spec = spec.for_data(options.data)
    folder = StudyFolder(options.output / spec.name)
    is_new = not folder.study_json.exists()
    _check_places(options)
    if not is_new and not options.resume:
        raise StudyError(
            f"study {spec.name} exists in {folder.root}; continue it with --resume, or choose another --name"
        )
    check(options.resources)  # whatever can be wrong is found before anything is written
    if is_new and options.storage_url:
        storage.open_storage(folder, options.storage_url)
    stored = None if is_new else storage.read_study_json(folder)
    study_id = uuid.uuid4().hex if stored is None else stored["id"]
    folder = _open_folder(folder, study_id, options, stored)
    check_machines(options.resources, folder, say)
    check_own_methods(options.resources, OwnMethods.of(spec.space.users_own()))
    subject = find_subject(spec, options, stored, say, progress)
    if stored is not None:
        with storage.opened_study(folder, stored, options.storage_url):
            pass  # it is there
        _check_same(spec.name, stored["description"], describe_subject(subject.spec, subject))
        if options.finalists is not None:
            check_epochs(folder, options.finalists)
    _make_folder(folder.root)
    return OpenedStudy(folder, study_id, subject)


def open_ledger(
    opened: OpenedStudy,
    prepared: Prepared,
    options: RunOptions,
    observers: Sequence[StudyObserver],
    say: Callable[[str], None],
) -> Ledger:
    """Store what the study is, or check that it is what was stored, and open its accounts."""
    folder, spec = opened.folder, opened.subject.spec
    is_resumed = folder.study_json.exists()
    if is_resumed:
        payload = storage.read_study_json(folder)
        _check_same(spec.name, payload["description"], prepared.description)
    else:
        payload = {
            "name": spec.name,
            "id": opened.study_id,
            "optuna_study": f"{spec.name}-{opened.study_id[:8]}",
            "storage": storage.locate(options.storage_url),
            "shared": folder.remote.uri if folder.remote else "",
            "dense": {"origin": str(prepared.dense.origin), "metrics": prepared.dense.metrics},
            "dense_costs": prepared.subject.dense_costs.as_dict(),
            "description": prepared.description,
        }
    if is_resumed:
        storage.heal_journal(folder)
        study = storage.load_study(folder, payload, options.storage_url)
    else:
        study = storage.create_study(folder, payload, options.storage_url)
    shapes = spec.space.shapes(prepared.subject.costs, spec.limits, prepared.ranking)
    n_images = spec.images(spec.epochs, prepared.context.roles)
    budget = Budget(spec.trials, _count_given(spec, prepared), n_images, options.time_limit_s)
    sampler, why = choose_sampler(options.sampler, spec, shapes, budget)
    say(why)
    summary = storage.make_summary(folder, payload, spec.trials, is_resumed)
    n_known = len(study.get_trials(deepcopy=False))
    problem = StudyProblem(spec, shapes, prepared.subject.costs, summary.reference_point)
    study.sampler = make_sampler(sampler, spec.seed, n_known, summary.floor, problem)
    if not is_resumed:
        payload["samplers"] = [sampler]
        write_json(folder.study_json, payload, schema=storage.STUDY_SCHEMA)
    rungs = sorted({spec.images(epochs, prepared.context.roles) for epochs in spec.rungs})
    ledger = Ledger(
        spec,
        prepared.subject.grouping,
        prepared.subject.costs,
        folder,
        study,
        summary,
        rungs,
        observers,
        prepared.warm_starts,
        prepared.ranking,
    )
    known = payload.get("samplers", [sampler])  # earlier versions recorded none: those stay unknown
    if ledger.has_work and sampler not in known:
        write_json(folder.study_json, {**payload, "samplers": [*known, sampler]}, schema=storage.STUDY_SCHEMA)
    return ledger


def _count_given(spec: StudySpec, prepared: Prepared) -> int:
    """Return how many trials no sampler chooses: the dense one, and all others that no limit refuses."""
    _, *others = spec.space.first_trials(prepared.subject.grouping)
    costs = [prepared.subject.costs.costs(architecture).as_dict() for _, architecture in others]
    allowed = [all(cost[metric] <= most for metric, most in spec.limits.items()) for cost in costs]
    return 1 + len(prepared.warm_starts) + sum(allowed)


def _open_folder(
    folder: StudyFolder, study_id: str, options: RunOptions, stored: Mapping[str, Any] | None
) -> StudyFolder:
    """Return a study's folder with its own part of the storage that is asked for.

    Raises:
        StudyError: If an earlier run had another storage.
        ConfigurationError: If the address cannot work.
    """
    remote = None
    if options.storage:
        shared = RemoteFolder(options.storage)
        shared.check()
        remote = shared.below(f"{folder.root.name}-{study_id[:8]}")
    if stored is not None:
        _check_same(
            folder.root.name, {"storage": stored.get("shared", "")}, {"storage": remote.uri if remote else ""}
        )
    return StudyFolder(folder.root, remote)


def _check_places(options: RunOptions) -> None:
    """Raise ConfigurationError if there is nothing where weights or data should be."""
    if options.weights is not None and not options.weights.exists():
        raise ConfigurationError(f"expected a weights file, found none at {options.weights}; check the path")
    if options.data is not None and not is_uri(options.data) and not Path(options.data).exists():
        raise ConfigurationError(
            f"expected a folder with the data set, found none at {options.data}; check the path"
        )


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"expected an output folder that can be written, got {root} ({error.strerror}); try --output DIR"
        ) from error


def _check_same(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a study as another one.

    Args:
        name: The study's name.
        stored: What it is.
        wanted: What it would be, as far as it is known yet.

    Raises:
        StudyError: Naming what differs.
    """
    differing = find_differences(stored, wanted)
    if differing:
        key = differing[0]
        others = f" ({', '.join(differing[1:])} differ too)" if differing[1:] else ""
        raise StudyError(
            f"study {name} has {key} {_short(stored, key)}, got {_short(wanted, key)}{others}; "
            "choose another --name, or start it as it was"
        )


def _short(description: Mapping[str, Any], key: str) -> str:
    text = str(find_part(description, key))
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."
