"""What comes before the first trial: the dense network, and where the search begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dirprune.allocation import Allocation
from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.importance import ScoringContext
from dirprune.importance.base import Progress
from dirprune.records.folder import StudyFolder
from dirprune.remote import RemoteFolder
from dirprune.study.dense import Dense, compare_roles, describe_origin, obtain_dense
from dirprune.study.floor import Floor, check_exceedable
from dirprune.study.ranking import MethodScores, obtain_ranking, recall_ranking
from dirprune.study.reference import compare_reference
from dirprune.study.rungs import compare_rungs
from dirprune.study.shapes import RANKED
from dirprune.study.space import PATH
from dirprune.study.spec import StudySpec
from dirprune.study.warm_starts import count_wanted, find_warm_starts, obtain_warm_starts
from dirprune.training import TrainingReport
from dirprune.trial import TrialContext, open_cache
from dirprune.tuning.errands import Errands
from dirprune.tuning.options import RunOptions
from dirprune.tuning.own_methods import OwnMethods
from dirprune.tuning.storage import read_study_json
from dirprune.tuning.subject import Subject, describe_subject


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first trial."""

    subject: Subject
    context: TrialContext
    dense: Dense
    description: dict[str, Any]
    warm_starts: list[Architecture]
    ranking: MethodScores | None


def prepare(
    spec: StudySpec,
    options: RunOptions,
    folder: StudyFolder,
    subject: Subject,
    say: Callable[[str], None],
    listen: Callable[[TrainingReport, int], None] | None,
    progress: Progress | None,
) -> Prepared:
    """Obtain the dense network, scores where architectures follow from them, warm starts, a description.

    What takes long is done where trials run.

    Args:
        spec: The study.
        options: How it runs.
        folder: Its folder, which exists.
        subject: What it is about.
        say: Takes the lines that a user should read.
        listen: Takes the reports of the dense network's training and its total of training images.
        progress: Told how far it is: the images that judge the dense network, and the search for warm starts.
    """
    if warning := compare_rungs(spec, subject.roles):
        say(warning)
    shared = None if options.storage else folder.root.absolute()
    methods = OwnMethods.of(spec.space.users_own())
    with Errands(options.resources, say, shared, methods) as place:
        tell = progress or _tell_nothing
        dense = _obtain_dense(spec, options, folder, subject, listen, place, tell)
        floor = _check_dense(spec, subject, dense, say)
        context = _make_context(spec, options, folder, subject, dense)
        scoring = context if place.is_elsewhere else replace(context, remote_scores=None)
        ranking = None
        if spec.space.architectures == RANKED:
            ranking = _obtain_ranking(scoring, place, tell)
            say("ranked architectures: they follow from the scores of each method, which are known now")
        least = 0.0 if floor is None else floor.least_promise(dense.metrics)

        def find() -> list[Allocation]:
            is_wanted = count_wanted(spec, subject.grouping) > 0
            return place(find_beginnings, scoring, subject.costs, least, progress=tell) if is_wanted else []

        warm_starts = obtain_warm_starts(folder, find)
    if warm_starts:
        told_by = "along greedy elimination" if spec.space.warm_starts_from == PATH else "when groups are cut"
        say(f"warm starts: {len(warm_starts)}, by what the network loses {told_by}")
    description = {**describe_subject(spec, subject), "weights": dense.digest}
    return Prepared(subject, context, dense, description, warm_starts, ranking)


def _obtain_dense(
    spec: StudySpec,
    options: RunOptions,
    folder: StudyFolder,
    subject: Subject,
    listen: Callable[[TrainingReport, int], None] | None,
    place: Errands,
    progress: Callable[[str, int, int], None],
) -> Dense:
    """Return the dense network; of a study that goes on its metrics are known."""
    known = {}
    if folder.study_json.exists():
        stored = read_study_json(folder)
        known[stored["description"]["weights"]] = stored["dense"]["metrics"]
    has_remote = bool(options.storage) and place.is_elsewhere
    return obtain_dense(
        spec,
        subject.roles,
        subject.choice,
        options.output,
        options.weights,
        listen,
        place=place,
        remote=RemoteFolder(options.storage).below("dense") if has_remote else None,
        known=known,
        progress=progress,
    )


def _check_dense(spec: StudySpec, subject: Subject, dense: Dense, say: Callable[[str], None]) -> Floor | None:
    """Say what the dense network is and what is odd about it; return the least accuracy, if any."""
    roles = subject.roles
    if warning := compare_roles(dense.metrics, len(roles.validation), len(roles.test)):
        say(warning)
    if warning := compare_reference(spec.objectives, subject.reference_point, dense.metrics):
        say(warning)
    floor = Floor.resolve(spec.min_val_accuracy, spec.objectives, dense.metrics)
    if floor is not None:
        check_exceedable(floor.accuracy, str(spec.min_val_accuracy))
        if warning := floor.compare(dense.metrics):
            say(warning)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(dense.metrics.items()))
    costs = subject.dense_costs
    say(f"dense network: {metrics}, {costs.macs:,} MACs, {costs.parameters:,} parameters ({dense.origin})")
    return floor


def _make_context(
    spec: StudySpec, options: RunOptions, folder: StudyFolder, subject: Subject, dense: Dense
) -> TrialContext:
    resources = options.resources
    return TrialContext(
        spec,
        subject.roles,
        dense.state,
        folder.root.absolute(),
        (options.output / "scores").absolute(),
        describe_origin(spec.identify_network(), subject.roles, subject.choice),
        resources.threads,
        subject.latency,
        subject.grouping,
        n_workers=resources.n_workers,
        remote=folder.remote,
        remote_scores=RemoteFolder(options.storage).below("scores") if options.storage else None,
        memory_mb=options.memory_mb,
    )


def _obtain_ranking(context: TrialContext, place: Errands, progress: Progress) -> MethodScores:
    """Return the scores that ranked architectures follow from; no worker is asked for those that are kept."""
    if place.is_elsewhere:
        known = recall_ranking(
            context.spec.space, _open_scoring(context, "cpu", progress), open_cache(context)
        )
        if known is not None:
            return known
    return place(find_ranking, context, progress=progress)


def find_ranking(context: TrialContext, *, device: str, progress: Progress) -> MethodScores:
    """Return the scores that ranked architectures follow from."""
    return obtain_ranking(context.spec.space, _open_scoring(context, device, progress), open_cache(context))


def find_beginnings(
    context: TrialContext, costs: CostModel, least_promise: float, *, device: str, progress: Progress
) -> list[Allocation]:
    """Return the study's warm starts; see `find_warm_starts`."""
    scoring = _open_scoring(context, device, progress)
    return find_warm_starts(context.spec, scoring, costs, open_cache(context), least_promise)


def _open_scoring(context: TrialContext, device: str, progress: Progress) -> ScoringContext:
    """Return the dense network and the calibration images as the trials have them."""
    spec, roles = context.spec, context.roles
    assert context.grouping is not None
    network = spec.create_network()
    network.load_state_dict(dict(context.dense_state))
    return ScoringContext(
        network.to(device).eval(),
        context.grouping,
        roles.calibration,
        roles.normalise,
        spec.task(),
        spec.seed,
        device,
        progress=progress,
        memory_mb=context.memory_mb,
    )


def _tell_nothing(what: str, n_done: int, n_total: int) -> None: ...
