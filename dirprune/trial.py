"""One trial from its configuration to a finished model, as a generator of reports; knows nothing of Ray."""

from __future__ import annotations

import copy
import math
import platform
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.data import DataRoles
from dirprune.errors import ConfigurationError, StudyError, TrainingDiverged, one_line
from dirprune.files import read_json, user_cache_folder, write_json
from dirprune.groups import Grouping
from dirprune.identity import complete_identity
from dirprune.importance import ScoreCache
from dirprune.importance.base import MEMORY_MB
from dirprune.latency import LatencyModel
from dirprune.parallel import Crew
from dirprune.preemption import Preempted, Preemption
from dirprune.pruning import prune
from dirprune.records.events import EventLog, read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.mirror import fetch, fetch_events, locate, send, send_events
from dirprune.records.models import save_model
from dirprune.remote import RemoteFolder
from dirprune.study.space import Configuration
from dirprune.study.spec import StudySpec
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from dirprune.training import TrainingReport, TrainingState, evaluate, train_
from dirprune.training_state import CHECKPOINT_S, Interval

KEPT_SCHEMA = 1


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a study share; it travels once to each worker.

    Attributes:
        spec: The study.
        roles: The data in its four roles.
        dense_state: State dict of the dense network.
        folder: The study's folder.
        scores: Folder of the score cache, shared by studies.
        origin: What a stored model says of the weights that it comes from.
        threads: CPU threads of each process of a trial.
        latency: How long architectures take; None where nobody asks.
        grouping: The network's channel groups; None: each worker finds them.
        checkpoint_s: Seconds of training after which a checkpoint is written, also between reports.
        n_workers: Processes that train one trial together.
        remote: The study's part of a storage; None: all machines see `folder` and `scores`.
        remote_scores: The part that all studies share.
        memory_mb: Memory in MiB that scoring and refitting may take beside the network and the images.
    """

    spec: StudySpec
    roles: DataRoles
    dense_state: Mapping[str, Tensor]
    folder: Path
    scores: Path
    origin: Mapping[str, str]
    threads: int = 1
    latency: LatencyModel | None = None
    grouping: Grouping | None = None
    checkpoint_s: float = CHECKPOINT_S
    n_workers: int = 1
    remote: RemoteFolder | None = None
    remote_scores: RemoteFolder | None = None
    memory_mb: int = MEMORY_MB


@dataclass(frozen=True)
class TrialReport:
    """What a trial says at a resource.

    Attributes:
        images: Training images seen since pruning.
        metrics: Validation metrics and costs; a final report has the test metrics as well.
        is_final: Whether the trial has run to its full resource and its model is stored.
    """

    images: int
    metrics: dict[str, float]
    is_final: bool = False


def open_cache(context: TrialContext) -> ScoreCache:
    """Return the scores that all machines share, as a worker sees them."""
    is_seen = context.remote_scores is None
    folder = context.scores if is_seen else user_cache_folder() / "scores"  # else it is on another machine
    return ScoreCache(folder, context.remote_scores)


class Workbench:
    """The study's dense network, groups, data and cache, made once per worker for all trials on it.

    Args:
        context: What all trials share.
        preemption: Whether the worker was told to end.
        crew: Workers that train every trial together with this one.
        device: Where it computes.
    """

    def __init__(
        self,
        context: TrialContext,
        preemption: Preemption | None = None,
        crew: Crew | None = None,
        device: str = "cpu",
    ) -> None:
        self.preemption = preemption or Preemption()
        self.crew = crew
        self.checkpoint_s = context.checkpoint_s
        self.memory_mb = context.memory_mb
        self.spec = context.spec
        self.folder = StudyFolder(context.folder)
        if context.remote is not None:  # the study's folder is on another machine
            self._scratch = tempfile.TemporaryDirectory(prefix="dirprune-", ignore_cleanup_errors=True)
            self.folder = StudyFolder(Path(self._scratch.name), context.remote)
        self.device = device
        self.roles = context.roles.to(self.device)
        self.task = self.spec.task()
        self.example_input = context.roles.example_input()
        network = self.spec.create_network()
        network.load_state_dict(dict(context.dense_state))
        self.grouping = context.grouping or find_groups(network.eval(), self.example_input)
        self.costs = CostModel(network, self.grouping, self.example_input)
        if context.latency is not None:
            self.costs = self.costs.with_latency(context.latency.constant_ms, context.latency.rates_ms)
        self.network: nn.Module = network.to(self.device)
        self.cache = open_cache(context)
        self.base = {**complete_identity(self.spec.identify_network()), "weights": dict(context.origin)}
        self.rungs = [self.spec.images(epochs, context.roles) for epochs in self.spec.rungs]
        self.told = set(self.roles.unreadable)  # by the driver


def make_final_bench(bench: Workbench, trial: int, repetition: int, epochs: float) -> Workbench:
    """Return a workbench for one training of a finalist: its own folder and resource, and no rungs."""
    final = copy.copy(bench)
    final.folder = bench.folder.finalist(trial, repetition)
    final.spec = replace(bench.spec, epochs=epochs)
    final.rungs = []
    return final


def run_trial(
    bench: Workbench, configuration: Configuration, repetition: int | None = None
) -> Iterator[TrialReport]:
    """Prune, fine-tune and judge one configuration, continuing from its checkpoint where there is one.

    The trial's events go to its file; a checkpoint is written at every report, after some time without one,
    and when the worker is told to end while it trains; whoever settles the trial removes it.
    A continued trial first repeats the report of its checkpoint, because nobody may have heard it.

    Args:
        bench: The worker's shared parts.
        configuration: The trial's choices.
        repetition: Which further seed fine-tunes it as a finalist, from 0; None: the trial's own, as a trial.

    Yields:
        A report right after pruning, at each epoch's end, at each rung, and a final one.

    Raises:
        TrainingDiverged: If an objective is not finite.
        ConfigurationError: If an objective is not among the metrics.
        StudyError: At its end, if a later attempt at the same trial has started.
        Preempted: If the worker was told to end. The trial has not failed.
    """
    attempt = _Attempt(bench, configuration, repetition)
    try:
        yield from attempt.run()
    except Preempted:
        attempt.log.append("preempted")
        raise
    except Exception as error:
        attempt.log.append("failed", reason=describe_failure(error))
        raise


class _Attempt:
    """One attempt at a trial: a trial whose worker is lost gets another."""

    def __init__(self, bench: Workbench, configuration: Configuration, repetition: int | None) -> None:
        self.bench = bench
        self.configuration = configuration
        number = configuration.number
        self.folder, attempt = bench.folder, uuid.uuid4().hex
        self.log = EventLog(
            self.folder.events(number), attempt, lambda: send_events(self.folder, number, attempt)
        )
        checkpoints = self.folder.checkpoint_dir(number)
        self.kept_path = checkpoints / "kept.json"
        self.state_path = checkpoints / "state.pt"
        self.shortage_path = checkpoints / "shortage.json"
        self.interval = Interval(bench.checkpoint_s)
        self.costs = bench.costs.costs(configuration.architecture)
        # a further 0 would change nothing, so that repetitions count from 1 here
        further = [] if repetition is None else [repetition + 1]
        final = {} if repetition is None else bench.spec.final_fine_tuning
        self.fine_tuning = {**configuration.fine_tuning, **final}
        seeds = np.random.SeedSequence([bench.spec.seed, number, *further])
        self.seed = int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def run(self) -> Iterator[TrialReport]:
        bench, spec = self.bench, self.bench.spec
        fetch_events(self.folder, self.configuration.number)
        fetch(self.folder, self.state_path.parent)
        origin = locate(self.folder, self.state_path)
        state = TrainingState.load(self.state_path, origin) if self.state_path.exists() else None
        resumed_from = None if state is None else state.images
        self.log.append("started", resumed_from=resumed_from, machine=platform.node())
        network, kept = self._prune() if state is None else self._recut()
        epochs = 0.0 if self.configuration.source == "dense" else spec.epochs
        recipe = replace(spec.fine_tuning, images=spec.images(epochs, bench.roles), **self.fine_tuning)
        teacher = bench.network if recipe.distillation > 0 else None
        with bench.preemption.deferred():
            bench.preemption.check()
            last = state
            if state is not None and state.is_last:
                network.load_state_dict(state.model)
            else:
                if state is not None:
                    yield TrialReport(state.reported_images, self._judge(state.metrics))
                for report in train_(
                    network,
                    bench.roles,
                    bench.task,
                    recipe,
                    seed=self.seed,
                    device=bench.device,
                    teacher=teacher,
                    state=state,
                    stops=sorted({0, *bench.rungs}),
                    wants_pause=self._wants_checkpoint,
                    crew=bench.crew,
                    in_halves=self.shortage_path.exists(),
                    note_shortage=self._note_shortage,
                ):
                    metrics = {} if report.is_pause else self._judge(report.metrics)
                    self._tell_unreadable()
                    if not report.is_pause:
                        self.log.append("report", images=report.images, metrics=metrics)
                    last = self._keep(report)
                    if not (report.is_pause or report.is_last):
                        yield TrialReport(report.images, metrics)
            assert last is not None
            yield self._finish(network, kept, last)

    def _tell_unreadable(self) -> None:
        """Name the images that were left out, of which this worker has not told yet."""
        images = [reason for reason in self.bench.roles.unreadable if reason not in self.bench.told]
        if images:
            self.bench.told.update(images)
            self.log.append("unreadable", images=images)

    def _wants_checkpoint(self) -> bool:
        bench = self.bench
        return bench.preemption.is_asked or self.interval.is_over()

    def _note_shortage(self) -> None:
        """Let the next attempt compute in halves: memory ran out in this one."""
        self._leave(self.shortage_path, {})

    def _leave(self, path: Path, content: Mapping[str, object]) -> None:
        """Write what the next attempt reads, unless it has started already."""
        if self._is_newest():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content, schema=KEPT_SCHEMA)
            send(self.folder, path)

    def _keep(self, report: TrainingReport) -> TrainingState:
        """Write a checkpoint, and leave if the worker was told to end."""
        state = report.capture()
        if self._is_newest():
            state.save(self.state_path)
            send(self.folder, self.state_path)
        self.interval.restart()
        if not report.is_last:
            self.bench.preemption.check()
        return state

    def _prune(self) -> tuple[nn.Module, dict[str, list[int]]]:
        bench, configuration = self.bench, self.configuration
        if configuration.architecture == Architecture.full(bench.grouping):
            network = compact(bench.network, bench.grouping, {}, bench.example_input)
            kept = {name: list(range(size)) for name, size in bench.grouping.n_channels.items()}
        else:
            pruned = prune(
                bench.network,
                bench.roles,
                bench.task,
                architecture=configuration.architecture,
                method=configuration.method,
                options=dict(configuration.method_options),
                seed=bench.spec.seed,
                cache=bench.cache,
                device=bench.device,
                grouping=bench.grouping,
                memory_mb=bench.memory_mb,
                reconstruct=bench.spec.reconstruct,
            )
            network, kept = pruned.network, pruned.kept
            self.log.append(
                "scored", method=configuration.method, cached=pruned.was_cached, seconds=pruned.scoring_time_s
            )
        self._leave(self.kept_path, {"kept": kept})
        self.log.append("pruned", **self.costs.as_dict(), kept=kept)
        return network, kept

    def _recut(self) -> tuple[nn.Module, dict[str, list[int]]]:
        kept = read_json(self.kept_path, schema=KEPT_SCHEMA)["kept"]
        bench = self.bench
        return compact(bench.network, bench.grouping, kept, bench.example_input).to(bench.device), kept

    def _judge(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Add the costs and check that every objective is there and finite."""
        judged = {**metrics, **self.costs.as_dict()}
        for objective in self.bench.spec.objectives:
            if objective.metric not in judged:
                raise ConfigurationError(
                    f"expected objective {objective.metric} among the reported metrics, "
                    f"got {', '.join(sorted(judged))}"
                )
            if not math.isfinite(judged[objective.metric]):
                raise TrainingDiverged(
                    f"objective {objective.metric} is {judged[objective.metric]}, not a finite number"
                )
        return judged

    def _finish(
        self, network: nn.Module, kept: Mapping[str, Sequence[int]], last: TrainingState
    ) -> TrialReport:
        bench, number = self.bench, self.configuration.number
        tested = evaluate(network, bench.roles.test, bench.roles, bench.task, bench.device, prefix="test_")
        metrics = {**self._judge(last.metrics), **tested}
        if not self._is_newest():
            raise StudyError(f"trial {number} goes on elsewhere, this worker had been given up")
        save_model(
            bench.folder.model_dir(number),
            network,
            architecture=self.configuration.architecture,
            kept=kept,
            base=bench.base,
            input_shape=bench.roles.input_shape,
            normalisation=bench.roles.normalisation,
            metrics=metrics,
        )
        send(self.folder, self.folder.model_dir(number))
        self._tell_unreadable()
        self.log.append("finished", metrics=metrics)
        return TrialReport(last.images, metrics, is_final=True)

    def _is_newest(self) -> bool:
        """Whether no later attempt has started: a lost worker that still runs must not overwrite it."""
        fetch_events(self.folder, self.configuration.number)
        return replay(read_events(self.log.path)).attempt == self.log.attempt


def describe_failure(error: BaseException) -> str:
    """Return why a trial failed, in one line: the kind of error and what it says."""
    return one_line(error, has_type=True)


def has_diverged(reason: str) -> bool:
    """Return whether a trial failed, for a reason of `describe_failure`, because of what it tried."""
    return reason.startswith(TrainingDiverged.__name__)
