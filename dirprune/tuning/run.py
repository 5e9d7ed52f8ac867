"""Run a study: from a declaration to a Pareto front on disk, and on from where an earlier run was cut off."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dirprune.architecture import Architecture
from dirprune.cost import CostModel, Costs
from dirprune.data import DataRoles
from dirprune.errors import ConfigurationError, StudyError
from dirprune.files import write_json
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext
from dirprune.importance.base import Progress
from dirprune.latency import LatencyModel
from dirprune.networks import load_weights_
from dirprune.records.finalists import Finalist, read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import sort_front
from dirprune.records.hypervolume import compute_hypervolume
from dirprune.records.record import TrialRecord
from dirprune.records.views import ViewWriter
from dirprune.study.dense import (
    DataChoice,
    Dense,
    check_classes,
    check_metrics,
    choose_data,
    compare_roles,
    describe_origin,
    obtain_dense,
)
from dirprune.study.floor import Floor
from dirprune.study.latency import LatencyOptions, obtain_latency
from dirprune.study.observer import StudyObserver
from dirprune.study.reference import check_reference, compare_reference
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import PATIENCE_SHARE, Patience
from dirprune.study.warm_starts import obtain_warm_starts
from dirprune.tracing import find_groups
from dirprune.training import TrainingReport, evaluate
from dirprune.trial import TrialContext
from dirprune.tuning import storage
from dirprune.tuning.cluster import Resources, Slots, check, connect
from dirprune.tuning.endings import PatienceWatch, TimeLimit
from dirprune.tuning.execution import execute
from dirprune.tuning.final_stage import run_finalists
from dirprune.tuning.finalists import FinalistOptions
from dirprune.tuning.full_disk import describe_full_disk
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.samplers import check_choice, make_sampler
from dirprune.tuning.samplers.choice import choose_sampler


@dataclass(frozen=True)
class RunOptions:
    """What a study runs on, and how.

    Attributes:
        output: Folder of all studies, dense networks and scores.
        data: Folder of the data set; None: embedded or downloaded.
        weights: File of the dense network's weights; None trains it once.
        resume: Whether a study of that name may be continued.
        resources: What to use of which cluster.
        latency: Where latencies come from, for a study that asks for them.
        storage_url: URL of a relational database for Optuna; empty: a journal file in the study's folder.
        sampler: What chooses the trials, one of `dirprune.tuning.samplers.CHOICES`; a resumed study may
            choose another.
        patience: Settled trials without growth of the hypervolume after which the search ends; None: never.
        patience_share: Growth that counts, as a share of the hypervolume.
        finalists: How members of the front are trained again after the search; None: not at all.
        time_limit_s: Seconds from the call after which no trial runs on, to be resumed; None: never.
    """

    output: Path = Path("output")
    data: Path | None = None
    weights: Path | None = None
    resume: bool = False
    resources: Resources = field(default_factory=Resources)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    storage_url: str = ""
    sampler: str = "auto"
    patience: int | None = None
    patience_share: float = PATIENCE_SHARE
    time_limit_s: float | None = None
    finalists: FinalistOptions | None = None


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
    if not is_new and not options.resume:
        raise StudyError(
            f"study {spec.name} exists in {folder.root}; continue it with --resume, or choose another --name"
        )
    check(options.resources)  # whatever can be wrong is found before anything is written
    stored = None if is_new else storage.read_study_json(folder)
    subject = _find_subject(spec, options, stored, say)
    if stored is not None:
        storage.load_study(folder, stored, options.storage_url)
        _check_same(spec.name, stored["description"], _describe(spec, subject))
    _make_folder(folder.root)
    with storage.hold_study(folder):
        prepared = _prepare(spec, options, folder, subject, say, listen, progress)
        ledger = _open_ledger(spec, options, folder, prepared, [ViewWriter(), *observers], say)
        if patience is not None:
            ledger.observers = [*ledger.observers, PatienceWatch(patience, ledger)]
        is_interrupted = False
        limit = TimeLimit()

        def left_s() -> float | None:
            return options.time_limit_s and options.time_limit_s - (time.monotonic() - began)

        ledger.start()
        try:
            if ledger.has_work:
                with limit.running_out_in(left_s()), connect(options.resources) as slots:
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
        tuple(read_finalists(folder, records, spec.objectives)),
        failures,
    )


@dataclass(frozen=True)
class _Subject:
    """What is studied, as far as it is known without its weights."""

    choice: DataChoice
    roles: DataRoles
    grouping: Grouping
    costs: CostModel
    dense_costs: Costs
    reference_point: dict[str, float]
    latency: LatencyModel | None


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known before the first trial."""

    subject: _Subject
    context: TrialContext
    dense: Dense
    description: dict[str, Any]
    warm_starts: list[Architecture]


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"expected an output folder that can be written, got {root} ({error.strerror}); try --output DIR"
        ) from error


def _find_subject(
    spec: StudySpec, options: RunOptions, stored: Mapping[str, Any] | None, say: Callable[[str], None]
) -> _Subject:
    """Load the data and look at the network; neither depends on weights."""
    choice = choose_data(spec, options.weights)
    roles = spec.load_data(options.data, choice.validation_from, choice.seed)
    say(f"data: {roles.name}; validation from {choice.validation_from} ({choice.reason})")
    network = spec.create_network().eval()
    if options.weights is not None:
        load_weights_(network, options.weights)
    grouping = find_groups(network, roles.example_input())
    grouping.check_any()
    spec.space.first_trials(grouping)  # raises where they do not fit the network
    for name, reason in grouping.refused.items():
        say(f"channel group {name} is left whole: {reason}")
    costs = CostModel(network, grouping, roles.example_input())
    latency = None
    if spec.needs_latency:
        known = None if stored is None else stored["description"].get("latency")
        latency = obtain_latency(options.latency, known, network, grouping, roles, say)
        costs = costs.with_latency(latency.constant_ms, latency.rates_ms)
    spec.space.shapes(costs, spec.limits)  # raises where nothing meets a limit
    dense_costs = costs.costs(grouping.n_channels)
    reference_point = spec.resolve_reference(roles, dense_costs.as_dict())
    lowest = costs.costs({name: spec.space.lowest(n) for name, n in grouping.n_channels.items()})
    check_reference(spec.objectives, reference_point, dense_costs.as_dict(), lowest.as_dict())
    check_classes(spec, network, roles)
    check_metrics(spec, evaluate(network, roles.validation, roles, spec.task()))
    return _Subject(choice, roles, grouping, costs, dense_costs, reference_point, latency)


def _prepare(
    spec: StudySpec,
    options: RunOptions,
    folder: StudyFolder,
    subject: _Subject,
    say: Callable[[str], None],
    listen: Callable[[TrainingReport, int], None] | None,
    progress: Progress | None,
) -> _Prepared:
    """Obtain the dense network and put together what describes the study."""
    roles = subject.roles
    dense = obtain_dense(spec, roles, subject.choice, options.output, options.weights, listen)
    if warning := compare_roles(dense.metrics, len(roles.validation), len(roles.test)):
        say(warning)
    if warning := compare_reference(spec.objectives, subject.reference_point, dense.metrics):
        say(warning)
    floor = Floor.resolve(spec.min_val_accuracy, spec.objectives, dense.metrics)
    if floor is not None and (warning := floor.compare(dense.metrics)):
        say(warning)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(dense.metrics.items()))
    costs = subject.dense_costs
    say(f"dense network: {metrics}, {costs.macs:,} MACs, {costs.parameters:,} parameters ({dense.origin})")
    description = {**_describe(spec, subject), "weights": dense.digest}
    threads = max(1, int(options.resources.cpus_per_trial))
    scores = (options.output / "scores").absolute()
    origin = describe_origin(spec.describe()["network"], roles, subject.choice)
    context = TrialContext(
        spec,
        roles,
        dense.state,
        folder.root.absolute(),
        scores,
        origin,
        threads,
        subject.latency,
        subject.grouping,
    )
    warm_starts = _find_warm_starts(folder, subject, context, progress)
    if warm_starts:
        say(f"warm starts: {len(warm_starts)} architectures, by what the network loses when groups are cut")
    return _Prepared(subject, context, dense, description, warm_starts)


def _find_warm_starts(
    folder: StudyFolder, subject: _Subject, context: TrialContext, progress: Progress | None
) -> list[Architecture]:
    spec, roles = context.spec, context.roles
    network = spec.create_network()
    network.load_state_dict(dict(context.dense_state))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scoring = ScoringContext(
        network.to(device).eval(),
        subject.grouping,
        roles.calibration,
        roles.normalise,
        spec.task(),
        spec.seed,
        device,
        progress=progress,
    )
    return obtain_warm_starts(folder, spec, scoring, subject.costs, ScoreCache(context.scores))


def _describe(spec: StudySpec, subject: _Subject) -> dict[str, Any]:
    """Return everything but the weights that must be the same for a study to go on, as JSON gives it back."""
    roles = subject.roles
    description = spec.describe()
    description["data"] |= {
        "name": roles.name,
        "fingerprint": roles.fingerprint(),
        "validation_from": subject.choice.validation_from,
    }
    description |= {"groups": subject.grouping.n_channels, "reference_point": subject.reference_point}
    if subject.latency is not None:
        description["latency"] = subject.latency.to_json()
    return storage.plain(description)


def _open_ledger(
    spec: StudySpec,
    options: RunOptions,
    folder: StudyFolder,
    prepared: _Prepared,
    observers: Sequence[StudyObserver],
    say: Callable[[str], None],
) -> Ledger:
    """Store what the study is, or check that it is what was stored, and open its accounts."""
    is_resumed = folder.study_json.exists()
    if is_resumed:
        payload = storage.read_study_json(folder)
        _check_same(spec.name, payload["description"], prepared.description)
    else:
        study_id = uuid.uuid4().hex
        payload = {
            "name": spec.name,
            "id": study_id,
            "optuna_study": f"{spec.name}-{study_id[:8]}",
            "storage": storage.describe_url(options.storage_url),
            "dense": {"origin": str(prepared.dense.origin), "metrics": prepared.dense.metrics},
            "dense_costs": prepared.subject.dense_costs.as_dict(),
            "description": prepared.description,
        }
    if is_resumed:
        storage.heal_journal(folder)
        study = storage.load_study(folder, payload, options.storage_url)
    else:
        study = storage.create_study(folder, payload, options.storage_url)
    shapes = spec.space.shapes(prepared.subject.costs, spec.limits)
    sampler, why = choose_sampler(options.sampler, spec.space, shapes, spec.trials)
    say(why)
    summary = storage.make_summary(folder, payload, spec.trials, is_resumed)
    study.sampler = make_sampler(sampler, spec.seed, len(study.get_trials(deepcopy=False)), summary.floor)
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
    differing = [key for key in sorted(wanted) if stored.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        others = f" ({', '.join(differing[1:])} differ too)" if differing[1:] else ""
        raise StudyError(
            f"study {name} has {key} {_short(stored.get(key))}, got {_short(wanted[key])}{others}; "
            "choose another --name, or start it as it was"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _execute(ledger: Ledger, prepared: _Prepared, slots: Slots) -> str:
    """Let Ray Tune prune and fine-tune the ledger's trials; see `execute`."""
    from dirprune.tuning.trainable import PruningTrainable  # loads Ray, whose environment is set by now

    return execute(ledger, slots, PruningTrainable, context=prepared.context)
