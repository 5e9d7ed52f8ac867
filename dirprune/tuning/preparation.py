"""What comes before the first trial: the dense network, and where the search begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dirprune.architecture import Architecture
from dirprune.importance import ScoreCache, ScoringContext
from dirprune.importance.base import Progress
from dirprune.records.folder import StudyFolder
from dirprune.remote import RemoteFolder
from dirprune.study.dense import Dense, compare_roles, describe_origin, obtain_dense
from dirprune.study.floor import Floor, check_exceedable
from dirprune.study.ranking import MethodScores, obtain_ranking
from dirprune.study.reference import compare_reference
from dirprune.study.rungs import compare_rungs
from dirprune.study.space import PATH
from dirprune.study.spec import StudySpec
from dirprune.study.warm_starts import obtain_warm_starts
from dirprune.training import TrainingReport
from dirprune.trial import TrialContext
from dirprune.tuning.options import RunOptions
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

    Args:
        spec: The study.
        options: How it runs.
        folder: Its folder, which exists.
        subject: What it is about.
        say: Takes the lines that a user should read.
        listen: Takes the reports of the dense network's training and its total of training images.
        progress: Told how far the search for warm starts is.
    """
    roles = subject.roles
    if warning := compare_rungs(spec, roles):
        say(warning)
    dense = obtain_dense(spec, roles, subject.choice, options.output, options.weights, listen)
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
    description = {**describe_subject(spec, subject), "weights": dense.digest}
    resources = options.resources
    scores = (options.output / "scores").absolute()
    origin = describe_origin(spec.describe()["network"], roles, subject.choice)
    context = TrialContext(
        spec,
        roles,
        dense.state,
        folder.root.absolute(),
        scores,
        origin,
        resources.threads,
        subject.latency,
        subject.grouping,
        n_workers=resources.n_workers,
        remote=folder.remote,
        remote_scores=RemoteFolder(options.storage).below("scores") if options.storage else None,
        memory_mb=options.memory_mb,
    )
    least = 0.0 if floor is None else floor.least_promise(dense.metrics)
    scoring = _open_scoring(subject, context, progress)
    cache = ScoreCache(scores)
    ranking = obtain_ranking(spec.space, scoring, cache)
    if ranking is not None:
        say("ranked architectures: they follow from the scores of each method, which are known now")
    warm_starts = obtain_warm_starts(folder, spec, scoring, subject.costs, cache, least)
    if warm_starts:
        told_by = "along greedy elimination" if spec.space.warm_starts_from == PATH else "when groups are cut"
        say(f"warm starts: {len(warm_starts)}, by what the network loses {told_by}")
    return Prepared(subject, context, dense, description, warm_starts, ranking)


def _open_scoring(subject: Subject, context: TrialContext, progress: Progress | None) -> ScoringContext:
    """Return the dense network and the calibration images as the trials have them."""
    spec, roles = context.spec, context.roles
    network = spec.create_network()
    network.load_state_dict(dict(context.dense_state))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ScoringContext(
        network.to(device).eval(),
        subject.grouping,
        roles.calibration,
        roles.normalise,
        spec.task(),
        spec.seed,
        device,
        progress=progress,
        memory_mb=context.memory_mb,
    )
