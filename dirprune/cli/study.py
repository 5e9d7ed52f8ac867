"""The command line that every study script has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dirprune.cli.errors import INTERRUPTED, run_command
from dirprune.cli.options import FILE, FOLDER, Number, WholeNumber
from dirprune.errors import ConfigurationError
from dirprune.halving import KINDS
from dirprune.study.objectives import Objective
from dirprune.study.shapes import SHAPES
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import PATIENCE_SHARE, parse_duration
from dirprune.tuning.cluster import LOCAL
from dirprune.tuning.samplers import CHOICES


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
        "--dense-epochs",
        type=Number(),
        help=f"Training of the dense network, where no weights are given. Default: {spec.dense_epochs:g}.",
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
        type=click.Choice(CHOICES),
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
        "--min-val-accuracy",
        metavar="A",
        help="Look for no network below it: 0.95, or dense-0.02 for two points below the dense network. "
        f"Default: {'none' if spec.min_val_accuracy is None else spec.min_val_accuracy}.",
    )
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
        "--warm-starts",
        type=WholeNumber(0),
        help="Trials to begin with that promise most for their cost, by what the network loses when groups "
        f"are cut alone; 0: none. Default: {spec.space.warm_starts}.",
    )
    @click.option(
        "--channel-multiple",
        type=WholeNumber(),
        help=f"Keep channels in multiples; 8 suits most GPUs. Default: {spec.space.channel_multiple}.",
    )
    @click.option(
        "--reference-point",
        type=Metrics(),
        help="Worst acceptable values, the hypervolume's corner. Default: dense cost; the least "
        "accuracy, or chance.",
    )
    @click.option(
        "--output",
        type=FOLDER,
        default=Path("output"),
        show_default=True,
        envvar="DIRPRUNE_OUTPUT",
        show_envvar=True,
        help="Folder of all studies; on a cluster one that all nodes share.",
    )
    @click.option(
        "--storage", default="", metavar="URL", help="Database for the trials. Default: a journal file."
    )
    @click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=True,
        help="MLflow server. Default: sqlite:///<output>/mlflow.db.",
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
        from dirprune.cli.study_run import run  # loads Ray, Optuna and MLflow

        result = run(spec, Arguments(**given))
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
    dense_epochs: float | None
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
    min_val_accuracy: str | None
    objectives: tuple[Objective, ...] | None
    latency: Path | None
    latency_batch: int
    architectures: str | None
    warm_starts: int | None
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
