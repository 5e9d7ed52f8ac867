"""The command line that every study script has: from its declaration to a printed front."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from dirprune.cli.errors import INTERRUPTED, run_command
from dirprune.cli.front import format_front
from dirprune.cli.options import FILE, FOLDER, Number, WholeNumber, check_can_write
from dirprune.cli.printing import TrainingProgress, format_table
from dirprune.cli.watch import StudyProgress
from dirprune.cost import LATENCY
from dirprune.data import DATA_NAMES
from dirprune.errors import ConfigurationError, StudyError, suggest
from dirprune.halving import KINDS
from dirprune.importance import get_method
from dirprune.records.record import TrialRecord
from dirprune.study.latency import LatencyOptions
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudyObserver
from dirprune.study.shapes import SHAPES
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import PATIENCE_SHARE, parse_duration
from dirprune.tracking import MlflowTracker, check_server, default_tracking_uri, ui_command
from dirprune.training import TrainingReport
from dirprune.tuning.cluster import LOCAL, Resources
from dirprune.tuning.finalists import FinalistOptions
from dirprune.tuning.run import RunOptions, StudyResult, run_study
from dirprune.tuning.samplers import SAMPLERS

N_ROWS = 30
CLOSING_S = 300.0


class Duration(click.ParamType):
    """A time in seconds, or in minutes or hours with m or h behind it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail with examples."""
        try:
            return parse_duration(str(value))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class Epochs(click.ParamType):
    """Numbers of epochs, written as 0,1,3."""

    name = "EPOCHS,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers, or fail with an example."""
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected numbers of epochs, got {str(value)!r}; for example 0,1,3", param, ctx)


class Objectives(click.ParamType):
    """Objectives, written as metric:direction,metric:direction."""

    name = "METRIC:DIRECTION,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Objective, ...]:
        """Return the objectives, or fail with an example."""
        try:
            return tuple(Objective.parse(part) for part in str(value).split(","))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class Metrics(click.ParamType):
    """Values by metric, written as metric=value,metric=value."""

    name = "METRIC=X,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return the values, or fail with an example."""
        if isinstance(value, Mapping):
            return dict(value)
        values = {}
        for part in str(value).split(","):
            metric, _, number = part.partition("=")
            try:
                values[metric.strip()] = float(number)
            except ValueError:
                self.fail(f"expected metric=number, got {part!r}; for example val_accuracy=0.9", param, ctx)
        return values


def study_main(spec: StudySpec) -> None:
    """Run a study script: read its command line, run the study, print the front, leave with the exit status.

    0 when all trials ended; 2 for a user's mistake, and when the study ended by itself before that (because
    its trials kept failing, say): one line gives the reason; 130 after Ctrl-C.

    Args:
        spec: The study; the command line changes it where it is asked to.
    """
    raise SystemExit(run_command(make_command(spec)))


def make_command(spec: StudySpec) -> click.Command:
    """Return the command of a study script."""
    embedded = f"the embedded {spec.embedded['data']}" if spec.embedded else "downloaded into the cache"

    @click.command(help=_help(spec))
    @click.option("--data", type=FOLDER, help=f"Folder of the data set. Default: {embedded}.")
    @click.option("--dataset", metavar="NAME", help="Another data set by name, such as fashion_mnist.")
    @click.option(
        "--weights",
        type=FILE,
        help="Trained weights of the dense network. Default: train it once and keep it.",
    )
    @click.option(
        "--validation-from",
        metavar="WHERE:F",
        default="",
        help="train:0.1 carves validation from the training set, test:0.5 from the held-out set. "
        "Default: by what the weights have seen.",
    )
    @click.option("--trials", type=int, help=f"Trials to start in all. Default: {spec.trials}.")
    @click.option(
        "--patience",
        type=WholeNumber(),
        help="End the search after so many settled trials without growth of the hypervolume. Default: never.",
    )
    @click.option(
        "--patience-share",
        type=Number(),
        default=PATIENCE_SHARE,
        show_default=True,
        help="Growth of the hypervolume that counts, as a share of it.",
    )
    @click.option(
        "--time-limit",
        type=Duration(),
        help="End in order after 90 (seconds), 15m or 2h; --resume goes on. Default: never.",
    )
    @click.option(
        "--finalists",
        type=WholeNumber(),
        help="After the search, train so many members of the front again. Default: none.",
    )
    @click.option(
        "--final-epochs",
        type=Number(),
        help="Fine-tuning of a finalist; fractions work. Default: that of a trial.",
    )
    @click.option(
        "--final-seeds", type=WholeNumber(), default=3, show_default=True, help="Trainings of each finalist."
    )
    @click.option(
        "--epochs", type=float, help=f"Fine-tuning of a trial; fractions work. Default: {spec.epochs:g}."
    )
    @click.option(
        "--train-images", type=WholeNumber(), help="Use only so many training images. Default: all."
    )
    @click.option(
        "--reconstruct/--no-reconstruct",
        default=None,
        help="Refit the layers behind the cuts by least squares before fine-tuning, or only estimate "
        f"batch norm's statistics anew. Default: {'refit' if spec.reconstruct else 'estimate'}.",
    )
    @click.option(
        "--sampler",
        type=click.Choice(SAMPLERS),
        default="auto",
        show_default=True,
        help="What chooses the trials; --resume may go on with another.",
    )
    @click.option(
        "--halving",
        type=click.Choice(KINDS),
        help="At a rung, end the trials that are not among the best, let them pause until they are, or let "
        f"all run to their end. Default: {spec.halving}.",
    )
    @click.option(
        "--reduction-factor",
        type=Number(),
        help=f"At a rung one trial in so many goes on. Default: {spec.reduction_factor:g}.",
    )
    @click.option(
        "--rungs",
        type=Epochs(),
        help="Epochs after which trials are compared; 0 is right after pruning. "
        f"Default: {','.join(f'{rung:g}' for rung in spec.rungs)}.",
    )
    @click.option("--name", help=f"Name of the study and of its folder. Default: {spec.name}.")
    @click.option("--resume", is_flag=True, help="Continue the study of that name, if there is one.")
    @click.option("--seed", type=WholeNumber(0), help=f"Decides all randomness. Default: {spec.seed}.")
    @click.option(
        "--methods", metavar="A,B", help=f"Importance methods. Default: {','.join(spec.space.methods)}."
    )
    @click.option("--max-macs", type=Number(), help="Start no trial above so many MACs.")
    @click.option("--max-parameters", type=Number(), help="Start no trial above so many parameters.")
    @click.option("--max-latency", type=Number(), metavar="MS", help="Start no trial that takes longer.")
    @click.option(
        "--objectives",
        type=Objectives(),
        help="What is traded: val_<metric>, macs, parameters, latency_ms, each with its direction. Default: "
        f"{','.join(map(str, spec.objectives))}.",
    )
    @click.option(
        "--latency",
        type=FILE,
        help="Latencies that dirprune fit-latency measured. Default: measured here, if they are asked for.",
    )
    @click.option(
        "--latency-batch",
        type=WholeNumber(),
        default=1,
        show_default=True,
        help="Inputs of the batch whose latency counts.",
    )
    @click.option(
        "--architectures",
        type=click.Choice(SHAPES),
        help="Draw a width for each group, or a cost target and an offset for each group. "
        f"Default: {spec.space.architectures}.",
    )
    @click.option(
        "--channel-multiple",
        type=WholeNumber(),
        help=f"Keep channels in multiples; 8 suits most GPUs. Default: {spec.space.channel_multiple}.",
    )
    @click.option(
        "--reference-point",
        type=Metrics(),
        help="Worst acceptable values, the hypervolume's corner. Default: chance accuracy at dense cost.",
    )
    @click.option(
        "--output", type=FOLDER, default=Path("output"), show_default=True, help="Folder of all studies."
    )
    @click.option(
        "--storage", default="", metavar="URL", help="Database for the trials. Default: a journal file."
    )
    @click.option(
        "--tracking-uri", metavar="URI", help="MLflow server. Default: sqlite:///<output>/mlflow.db."
    )
    @click.option(
        "--no-tracking", is_flag=True, help="Run without MLflow; files and front are written all the same."
    )
    @click.option(
        "--ray-address",
        default=LOCAL,
        show_default=True,
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="local, auto (the cluster of this machine), or an address.",
    )
    @click.option(
        "--cpus-per-trial", type=Number(), default=1.0, show_default=True, help="CPU cores of a trial."
    )
    @click.option(
        "--gpus-per-trial",
        type=float,
        help="GPUs of a trial; 0.5 puts two on one. Default: 1 where there are any.",
    )
    @click.option("--max-concurrent", type=WholeNumber(), help="Trials at once. Default: as many as fit.")
    def command(**given: Any) -> None:
        arguments = Arguments(**given)
        result = run(spec, arguments)
        if result.is_interrupted and not result.finish_reason:
            raise click.exceptions.Exit(INTERRUPTED)

    return command


def _help(spec: StudySpec) -> str:
    objectives = ", ".join(f"{o.metric} ({o.direction})" for o in spec.objectives)
    return (
        f"Study {spec.name}: prune and fine-tune in many ways, keep the best trades of {objectives}.\n\n"
        "Each point of the front is a network under <output>/<name>/models. A study that was cut off goes on "
        "with --resume: no finished trial runs again."
    )


@dataclass(frozen=True)
class Arguments:
    """What the command line said."""

    data: Path | None
    dataset: str | None
    weights: Path | None
    validation_from: str
    trials: int | None
    patience: int | None
    patience_share: float
    time_limit: float | None
    finalists: int | None
    final_epochs: float | None
    final_seeds: int
    epochs: float | None
    train_images: int | None
    reconstruct: bool | None
    sampler: str
    halving: str | None
    reduction_factor: float | None
    rungs: tuple[float, ...] | None
    name: str | None
    resume: bool
    seed: int | None
    methods: str | None
    max_macs: float | None
    max_parameters: float | None
    max_latency: float | None
    objectives: tuple[Objective, ...] | None
    latency: Path | None
    latency_batch: int
    architectures: str | None
    channel_multiple: int | None
    reference_point: dict[str, float] | None
    output: Path
    storage: str
    tracking_uri: str | None
    no_tracking: bool
    ray_address: str
    cpus_per_trial: float
    gpus_per_trial: float | None
    max_concurrent: int | None

    def apply(self, spec: StudySpec) -> StudySpec:
        """Return the study with what the command line changes.

        Raises:
            ConfigurationError: If a value cannot work.
        """
        if self.dataset is None:
            spec = spec.for_data(self.data)
        space = spec.space
        if self.methods is not None:
            names = [name.strip() for name in self.methods.split(",") if name.strip()]
            for name in names:
                get_method(name)
            space = space.restricted(names)
        if self.architectures is not None:
            space = replace(space, architectures=self.architectures)
        if self.channel_multiple is not None:
            space = replace(space, channel_multiple=self.channel_multiple)
        if self.dataset is not None:
            if self.dataset not in DATA_NAMES:
                raise ConfigurationError(
                    f"unknown data set {self.dataset!r}{suggest(self.dataset, DATA_NAMES)}"
                )
            spec = replace(spec, data=self.dataset, embedded={})
        limits = {"macs": self.max_macs, "parameters": self.max_parameters, LATENCY: self.max_latency}
        given = {metric: limit for metric, limit in limits.items() if limit is not None}
        return spec.changed(
            space=space,
            limits={**spec.limits, **given},
            objectives=self.objectives,
            name=self.name,
            trials=self.trials,
            epochs=self.epochs,
            train_images=self.train_images,
            reconstruct=self.reconstruct,
            halving=self.halving,
            reduction_factor=self.reduction_factor,
            rungs=self.rungs,
            seed=self.seed,
            validation_from=self.validation_from or None,
            reference_point=self.reference_point,
        )


def run(spec: StudySpec, arguments: Arguments) -> StudyResult:
    """Run a study as its command line says and print what came out."""
    check_can_write(arguments.output, is_folder=True)
    spec = arguments.apply(spec)
    resources = Resources(
        arguments.ray_address, arguments.cpus_per_trial, arguments.gpus_per_trial, arguments.max_concurrent
    )
    options = RunOptions(
        output=arguments.output,
        data=arguments.data,
        weights=arguments.weights,
        resume=arguments.resume,
        resources=resources,
        latency=LatencyOptions(
            arguments.latency, arguments.latency_batch, max(1, int(arguments.cpus_per_trial))
        ),
        storage_url=arguments.storage,
        sampler=arguments.sampler,
        patience=arguments.patience,
        patience_share=arguments.patience_share,
        time_limit_s=arguments.time_limit,
        finalists=None
        if arguments.finalists is None
        else FinalistOptions(
            arguments.finalists, arguments.final_epochs or spec.epochs, arguments.final_seeds
        ),
    )
    observers: list[StudyObserver] = [StudyProgress()]
    tracking_uri = arguments.tracking_uri or default_tracking_uri(arguments.output)
    tracker = None
    if not arguments.no_tracking:
        if arguments.tracking_uri:
            check_server(tracking_uri)
        tracker = MlflowTracker(tracking_uri, network=spec.network if callable(spec.network) else None)
        observers.append(tracker)
    listener = _DenseListener(spec)
    try:
        result = run_study(spec, options, observers, say=click.echo, listen=listener)
    finally:
        left = _close(tracker) if tracker is not None and tracker.has_started else []
    _print_result(spec, result)
    if tracker is not None:
        click.echo(f"MLflow: {ui_command(tracking_uri)}")
    if left:
        click.echo(f"not in MLflow yet: {', '.join(left)}; the same command with --resume completes it")
    if result.finish_reason:
        click.echo(f"the study ended early: {result.finish_reason}")
    if result.is_interrupted:
        n_left = sum(record.state == "RUNNING" for record in result.records)
        kept = f"{n_left} unfinished trials are" if n_left else "every finished training of a finalist is"
        click.echo(f"interrupted: {kept} kept; the same command with --resume continues them")
    if result.end_reason:
        raise StudyError(f"the study ended by itself: {result.end_reason}")
    return result


class _DenseListener:
    """Print the training of the dense network."""

    def __init__(self, spec: StudySpec) -> None:
        self.epochs = spec.dense_epochs
        self.started = time.monotonic()
        self.progress: TrainingProgress | None = None

    def __call__(self, report: TrainingReport, n_images: int) -> None:
        if self.progress is None:
            click.echo("training the dense network, once:")
            self.progress = TrainingProgress(n_images, round(n_images / self.epochs), started=self.started)
        self.progress.show(report)


def _close(tracker: MlflowTracker) -> list[str]:
    """Wait for the last uploads; a second Ctrl-C leaves them to a later --resume."""
    click.echo("completing MLflow (front models among it) ...", err=True)
    try:
        return tracker.close(CLOSING_S)
    except KeyboardInterrupt:
        return ["what was left when Ctrl-C came"]


def _count_sources(front: Sequence[TrialRecord]) -> str:
    counts = Counter(record.source for record in front)
    return ", ".join(f"{n} {source}" for source, n in counts.most_common())


def _print_finalists(spec: StudySpec, result: StudyResult) -> None:
    """Print the finalists' means and spreads, and which trainings failed."""
    if result.finalists:
        chosen = [objective.metric for objective in spec.objectives]
        tested = [metric.replace("val_", "test_", 1) for metric in chosen if metric.startswith("val_")]
        columns = [*chosen, *tested]
        rows = []
        for finalist in result.finalists:
            record = finalist.record
            cells = [_with_spread(record.metrics.get(c), finalist.spread.get(c)) for c in columns]
            mark = "yes" if record.is_front else "no"
            rows.append([str(record.number), mark, str(finalist.n_seeds), *cells])
        click.echo(
            "\nfinalists, mean and standard deviation over their seeds (validation decides the front):"
        )
        click.echo(format_table(["trial", "on front", "seeds", *columns], rows))
        click.echo(f"files:  {result.folder.finalists_csv}, {result.folder.finalists_dir}/<trial>-<seed>")
    for (number, repetition), reason in sorted(result.failed_finalists.items()):
        click.echo(f"finalist {number}, seed {repetition} failed: {reason}; --resume tries it again")


def _with_spread(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return ""
    text = f"{mean:,.0f}" if mean >= 100 else f"{mean:.4f}"
    return f"{text} +- {spread:.4f}" if spread else text


def _print_result(spec: StudySpec, result: StudyResult) -> None:
    """Print the front and where the files are."""
    front = result.front
    if front:
        click.echo(f"\nPareto front: {len(front)} networks, hypervolume {result.hypervolume:.4f}")
        click.echo(
            f"without the sampler's own trials: hypervolume {result.hypervolume_without_sampler:.4f}; "
            f"on the front: {_count_sources(front)}"
        )
        click.echo(format_front(front[:N_ROWS], spec.objectives))
        if len(front) > N_ROWS:
            click.echo(f"... and {len(front) - N_ROWS} more in {result.folder.front_csv}")
    folder = result.folder
    _print_finalists(spec, result)
    click.echo(f"\nfiles:  {folder.front_csv}, {folder.trials_csv}, {folder.front_html}, {folder.front_png}")
    click.echo(f"models: {folder.models_dir}/<trial>")
