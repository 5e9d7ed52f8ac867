"""Run a study: from a declaration to a Pareto front on disk, and on from where an earlier run was cut off."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dirprune.data.store import is_uri
from dirprune.errors import ConfigurationError, StudyError
from dirprune.files import write_json
from dirprune.importance.base import Progress
from dirprune.records.finalists import Finalist, read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import sort_front
from dirprune.records.hypervolume import compute_hypervolume
from dirprune.records.mirror import ResultsSender
from dirprune.records.record import TrialRecord
from dirprune.records.views import ViewWriter
from dirprune.remote import RemoteFolder
from dirprune.study.difference import find_differences, find_part
from dirprune.study.observer import StudyObserver
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import Patience
from dirprune.training import TrainingReport
from dirprune.tuning import storage
from dirprune.tuning.cluster import Slots, check, connect
from dirprune.tuning.endings import PatienceWatch, TimeLimit, ended_by_sigterm
from dirprune.tuning.execution import execute
from dirprune.tuning.final_stage import run_finalists
from dirprune.tuning.full_disk import describe_full_disk
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.machines import check_machines
from dirprune.tuning.options import RunOptions
from dirprune.tuning.preparation import Prepared, prepare
from dirprune.tuning.samplers import check_choice, make_sampler
from dirprune.tuning.samplers.choice import choose_sampler
from dirprune.tuning.samplers.problem import StudyProblem
from dirprune.tuning.subject import describe_subject, find_subject

MAX_TEXT = 240


@dataclass(frozen=True)
class StudyResult:
    """What a run leaves.

    Attributes:
        folder: The study's files.
        records: Every started trial, the front marked.
        hypervolume: Of the finished trials; costs as fractions of the dense network's.
        hypervolume_without_sampler: The same of the trials whose configuration the sampler did not choose.
        is_interrupted: Whether trials are left that a resumed run would go on with.
        end_reason: Why the study gave up before all its trials; empty if it did not.
        finish_reason: Why it ended in order before all its trials, by patience or the clock; empty otherwise.
        finalists: What was trained again, in earlier runs too, by macs, the final front marked.
        failed_finalists: Why a training of a finalist failed, by trial and repetition.
    """

    folder: StudyFolder
    records: list[TrialRecord]
    hypervolume: float
    hypervolume_without_sampler: float
    is_interrupted: bool
    end_reason: str
    finish_reason: str = ""
    finalists: tuple[Finalist, ...] = ()
    failed_finalists: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @property
    def front(self) -> list[TrialRecord]:
        """The trials on the Pareto front, by macs."""
        return sort_front(self.records)


def run_study(
    spec: StudySpec,
    options: RunOptions | None = None,
    observers: Sequence[StudyObserver] = (),
    say: Callable[[str], None] = print,
    listen: Callable[[TrainingReport, int], None] | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Run a study to its end, or continue it.

    Args:
        spec: The study.
        options: Where and how.
        observers: Who is told of every change, such as the tracking.
        say: Takes the lines that a user should read.
        listen: Takes the reports of the dense network's training and its total of training images.
        progress: Told how far what comes before the first trial is.

    Raises:
        StudyError: If the study exists and was not to be continued, differs from the stored one, or is being
            driven by another process.
        DirpruneError: Of other kinds for data, weights and settings that cannot work.
    """
    began = time.monotonic()
    options = options or RunOptions()
    check_choice(options.sampler)
    patience = None if options.patience is None else Patience(options.patience, options.patience_share)
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
    check_machines(options.resources, folder)
    subject = find_subject(spec, options, stored, say)
    spec = subject.spec
    if stored is not None:
        storage.load_study(folder, stored, options.storage_url)
        _check_same(spec.name, stored["description"], describe_subject(spec, subject))
    _make_folder(folder.root)
    with storage.hold_study(folder):
        prepared = prepare(spec, options, folder, subject, say, listen, progress)
        ours = [ViewWriter(), *([ResultsSender(folder)] if folder.remote else [])]
        ledger = _open_ledger(spec, options, folder, prepared, study_id, [*ours, *observers], say)
        if patience is not None:
            ledger.observers = [*ledger.observers, PatienceWatch(patience, ledger)]
        is_interrupted = False
        limit = TimeLimit()

        def left_s() -> float | None:
            return options.time_limit_s and options.time_limit_s - (time.monotonic() - began)

        ledger.start()
        try:
            if ledger.has_work:
                with limit.running_out_in(left_s()), connect(options.resources) as slots, ended_by_sigterm():
                    if reason := _execute(ledger, prepared, slots):
                        ledger.end_reason = describe_full_disk(folder.root, reason)
        except (KeyboardInterrupt, SystemExit):
            is_interrupted = True
        if limit.is_over:
            ledger.finish(f"the time limit of {options.time_limit_s:g} s is over")
        ledger.end(is_interrupted)
        failures: Mapping[tuple[int, int], str] = {}
        if not is_interrupted and not ledger.end_reason:
            is_interrupted, failures = run_finalists(
                ledger, prepared.context, options.finalists, options.resources, limit, left_s
            )
            if limit.is_over:
                ledger.finish(f"the time limit of {options.time_limit_s:g} s is over")
    records, summary = ledger.records, ledger.summary
    others = [record for record in records if record.source != "sampler"]
    return StudyResult(
        folder,
        records,
        ledger.hypervolume,
        compute_hypervolume(others, spec.objectives, summary.reference_point, summary.dense_costs),
        is_interrupted,
        ledger.end_reason,
        ledger.finish_reason,
        tuple(read_finalists(folder, records, spec.objectives, summary.floor)),
        failures,
    )


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


def _open_ledger(
    spec: StudySpec,
    options: RunOptions,
    folder: StudyFolder,
    prepared: Prepared,
    study_id: str,
    observers: Sequence[StudyObserver],
    say: Callable[[str], None],
) -> Ledger:
    """Store what the study is, or check that it is what was stored, and open its accounts."""
    is_resumed = folder.study_json.exists()
    if is_resumed:
        payload = storage.read_study_json(folder)
        _check_same(spec.name, payload["description"], prepared.description)
    else:
        payload = {
            "name": spec.name,
            "id": study_id,
            "optuna_study": f"{spec.name}-{study_id[:8]}",
            "storage": storage.describe_url(options.storage_url),
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
    sampler, why = choose_sampler(options.sampler, spec, shapes)
    say(why)
    summary = storage.make_summary(folder, payload, spec.trials, is_resumed)
    n_known = len(study.get_trials(deepcopy=False))
    problem = StudyProblem(spec, shapes, prepared.subject.costs, summary.reference_point)
    study.sampler = make_sampler(sampler, spec.seed, n_known, summary.floor, problem)
    if not is_resumed:
        write_json(folder.study_json, payload, schema=storage.STUDY_SCHEMA)
    rungs = sorted({spec.images(epochs, prepared.context.roles) for epochs in spec.rungs})
    return Ledger(
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


def _execute(ledger: Ledger, prepared: Prepared, slots: Slots) -> str:
    """Let Ray Tune prune and fine-tune the ledger's trials; see `execute`."""
    from dirprune.tuning.trainable import PruningTrainable  # loads Ray, whose environment is set by now

    return execute(ledger, slots, PruningTrainable, context=prepared.context)
