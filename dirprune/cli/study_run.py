"""What a study script does once its command line is read: run the study, print the front."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import click

from dirprune.cli.front import format_finalists, format_front
from dirprune.cli.options import check_can_write
from dirprune.cli.printing import ScoringProgress, TrainingProgress, format_count, print_registered
from dirprune.cli.study_arguments import NO_FLOOR, Arguments
from dirprune.cli.watch import StudyProgress
from dirprune.cost import LATENCY
from dirprune.data import check_data_name
from dirprune.errors import ConfigurationError, StudyError, TrackingError
from dirprune.importance import get_method
from dirprune.networks import as_file_name, create_network
from dirprune.recipes import for_data_set
from dirprune.records.failures import describe_failures
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.latency import LatencyOptions
from dirprune.study.observer import StudyObserver
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import PATIENCE_SHARE
from dirprune.tracking import (
    MlflowTracker,
    check_default_store,
    check_model_name,
    check_name,
    check_server,
    default_tracking_uri,
    is_in_default_store,
    register_front,
    ui_command,
)
from dirprune.training import TrainingReport
from dirprune.tuning.cluster import Resources
from dirprune.tuning.finalists import FinalistOptions
from dirprune.tuning.options import RunOptions
from dirprune.tuning.run import StudyResult, run_study
from dirprune.tuning.storage import make_summary, read_study_json

N_ROWS = 30
CLOSING_S = 300.0


def change(spec: StudySpec, arguments: Arguments) -> StudySpec:
    """Return the study with what the command line changes.

    Raises:
        ConfigurationError: If a value cannot work.
    """
    if arguments.dataset is None:
        spec = spec.for_data(arguments.data)
    if arguments.network is not None:
        create_network(arguments.network)  # raises before anything is loaded
        space = replace(spec.space, reference_architectures=())  # of the study's own network
        name = as_file_name(arguments.network)
        spec = replace(spec, network=arguments.network, network_options={}, name=name, space=space)
    space = spec.space
    if arguments.methods is not None:
        names = [name.strip() for name in arguments.methods.split(",") if name.strip()]
        for name in names:
            get_method(name)
        space = space.restricted(names)
    if arguments.architectures is not None:
        space = replace(space, architectures=arguments.architectures)
    if arguments.warm_starts is not None:
        space = replace(space, warm_starts=arguments.warm_starts)
    if arguments.warm_starts_from is not None:
        space = replace(space, warm_starts_from=arguments.warm_starts_from)
    if arguments.min_keep_ratio is not None:
        space = replace(space, min_keep_ratio=arguments.min_keep_ratio)
    if arguments.channel_multiple is not None:
        space = replace(space, channel_multiple=arguments.channel_multiple)
    if arguments.dataset is not None:
        check_data_name(arguments.dataset)
        spec = replace(
            spec,
            data=arguments.dataset,
            embedded={},
            dense=for_data_set(spec.dense, arguments.dataset),
            fine_tuning=for_data_set(spec.fine_tuning, arguments.dataset),
        )
    limits = {
        "macs": arguments.max_macs,
        "parameters": arguments.max_parameters,
        LATENCY: arguments.max_latency,
    }
    if arguments.min_val_accuracy == NO_FLOOR:
        spec, arguments = replace(spec, min_val_accuracy=None), replace(arguments, min_val_accuracy=None)
    given = {metric: limit for metric, limit in limits.items() if limit is not None}
    return spec.changed(
        space=space,
        limits={**spec.limits, **given},
        min_val_accuracy=arguments.min_val_accuracy,
        objectives=arguments.objectives,
        name=arguments.name,
        trials=arguments.trials,
        epochs=arguments.epochs,
        dense_epochs=arguments.dense_epochs,
        train_images=arguments.train_images,
        judged_images=arguments.judged_images,
        reconstruct=arguments.reconstruct,
        halving=arguments.halving,
        reduction_factor=arguments.reduction_factor,
        rungs=arguments.rungs,
        seed=arguments.seed,
        validation_from=arguments.validation_from or None,
        reference_point=arguments.reference_point,
    )


def make_resources(arguments: Arguments) -> Resources:
    """Return what the command line lets a study use.

    Raises:
        ConfigurationError: If it says an amount twice, or one that cannot be.
    """
    amounts = dict(arguments.resources_per_trial or {})
    alone = {"CPU": arguments.cpus_per_trial, "GPU": arguments.gpus_per_trial}
    for name, amount in alone.items():
        if name in amounts and amount is not None:
            raise ConfigurationError(
                f"--resources-per-trial: expected {name} once, got {name}={amounts[name]:g} and "
                f"--{name.lower()}s-per-trial {amount:g}; leave one out"
            )
    cpus, gpus = (amounts.pop(name, amount) for name, amount in alone.items())
    return Resources(
        arguments.ray_address,
        Resources.cpus_per_trial if cpus is None else cpus,
        gpus,
        arguments.max_concurrent,
        arguments.workers_per_trial,
        amounts,
    )


COMPANIONS = {"final_epochs": "finalists", "final_seeds": "finalists", "patience_share": "patience"}
"""Arguments that say nothing without another one."""


def _check_companions(arguments: Arguments) -> None:
    """Raise ConfigurationError if an argument is given that only goes with another one."""
    for name, needed in COMPANIONS.items():
        value = getattr(arguments, name)
        if value is not None and getattr(arguments, needed) is None:
            option, other = (f"--{each.replace('_', '-')}" for each in (name, needed))
            raise ConfigurationError(
                f"{option}: expected {other} N beside it, got {option} {value:g} alone; "
                f"add {other}, or leave it out"
            )


def _check_store(spec: StudySpec, arguments: Arguments) -> None:
    """Raise a TrackingError unless the study can be written to its tracking store."""
    uri = arguments.tracking_uri or default_tracking_uri(arguments.output)
    if arguments.tracking_uri:
        check_server(uri)
    else:
        check_default_store(arguments.output)
        if not is_in_default_store(arguments.output):
            return
    folder = StudyFolder(arguments.output / spec.name)
    known = read_study_json(folder)["id"] if folder.study_json.exists() else None
    check_name(uri, spec.name, spec.objectives, known)


def _make_options(spec: StudySpec, arguments: Arguments) -> RunOptions:
    """Return where and how a study runs.

    Raises:
        ConfigurationError: If a value cannot work.
    """
    resources = make_resources(arguments)
    return RunOptions(
        output=arguments.output,
        data=arguments.data,
        weights=arguments.weights,
        resume=arguments.resume,
        resources=resources,
        latency=LatencyOptions(
            arguments.latency, arguments.latency_batch, max(1, int(resources.cpus_per_trial))
        ),
        storage=arguments.storage,
        storage_url=arguments.optuna_storage,
        memory_mb=arguments.memory_mb,
        sampler=arguments.sampler,
        patience=arguments.patience,
        patience_share=PATIENCE_SHARE if arguments.patience_share is None else arguments.patience_share,
        time_limit_s=arguments.time_limit,
        finalists=None
        if arguments.finalists is None
        else FinalistOptions(
            arguments.finalists,
            arguments.final_epochs or spec.epochs,
            arguments.final_seeds or FinalistOptions.n_seeds,
        ),
    )


def run(spec: StudySpec, arguments: Arguments) -> StudyResult:
    """Run a study as its command line says and print what came out."""
    check_can_write(arguments.output, is_folder=True)
    spec = change(spec, arguments)
    if arguments.register is not None:
        check_model_name(arguments.register)
        if arguments.no_tracking:
            raise ConfigurationError("--register: expected tracking, got --no-tracking; leave one out")
    _check_companions(arguments)
    options = _make_options(spec, arguments)
    observers: list[StudyObserver] = [
        StudyProgress(time_limit_s=arguments.time_limit, finalists=options.finalists)
    ]
    tracking_uri = arguments.tracking_uri or default_tracking_uri(arguments.output)
    tracker = None
    if not arguments.no_tracking:
        try:
            _check_store(spec, arguments)
        except TrackingError as error:
            raise TrackingError(f"{error}, or go on with --no-tracking") from error
        tracker = MlflowTracker(tracking_uri, network=spec.network if callable(spec.network) else None)
        observers.append(tracker)
    listener = _DenseListener(spec)
    try:
        with ScoringProgress(["sensitivity"], title="preparing") as progress:
            result = run_study(spec, options, observers, say=click.echo, listen=listener, progress=progress)
    except KeyboardInterrupt:  # before the trials or after them; else it is in the result
        click.echo("what was finished is kept; the same command with --resume goes on", err=True)
        raise
    finally:
        left = _close(tracker) if tracker is not None and tracker.has_started else []
    _print_result(spec, result)
    if tracker is not None:
        click.echo(f"MLflow: {ui_command(tracking_uri)}")
    if arguments.register is not None:
        _register(arguments.register, tracking_uri, result)
    if left:
        click.echo(f"not in MLflow yet: {', '.join(left)}; the same command with --resume completes it")
    _print_what_is_left(result, has_finalists=options.finalists is not None)
    if result.end_reason:
        raise StudyError(f"the study ended by itself: {result.end_reason}")
    if result.fruitless:
        raise StudyError(
            f"{result.fruitless}; if the study's own code is why, mend it and choose another --name, else "
            "--resume with more --trials goes on"
        )
    return result


def _register(name: str, tracking_uri: str, result: StudyResult) -> None:
    """Register the front of a study under a name, if the study has come to its end."""
    if result.is_interrupted or result.end_reason or result.fruitless:
        click.echo(f"{name} is not registered yet: the study has not come to its end")
        return
    summary = make_summary(result.folder, read_study_json(result.folder), len(result.records), True)
    print_registered(name, *register_front(summary, tracking_uri, name, result.records, result.finalists))


def _print_what_is_left(result: StudyResult, *, has_finalists: bool) -> None:
    """Print why a study ended early, what of it is left to do, and how it goes on."""
    if result.finish_reason:
        click.echo(f"the study ended early: {result.finish_reason}")
        if has_finalists and result.front and not result.finalists:
            n_trials = len(result.records)
            click.echo(f"no time was left for finalists; --resume with --trials {n_trials} trains them")
    if result.is_interrupted:
        n_left = sum(record.state == "RUNNING" for record in result.records)
        if n_left:
            kept = f"{format_count(n_left, 'unfinished trial')} {'are' if n_left > 1 else 'is'}"
        else:
            kept = "every finished training of a finalist is" if has_finalists else "what was prepared is"
        why = "" if result.finish_reason else "interrupted: "
        click.echo(f"{why}{kept} kept; the same command with --resume goes on")


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
        click.echo("\n" + format_finalists(result.finalists, spec.objectives, result.folder))
        click.echo(f"files:  {result.folder.final_front_csv}, {result.folder.finalists_csv}")
    for (number, repetition), reason in sorted(result.failed_finalists.items()):
        click.echo(f"finalist {number}, seed {repetition} failed: {reason}; --resume tries it again")


def _name_setting(folder: StudyFolder) -> str:
    """Return the options of `dirprune latency` by which it measures what the study's model is of."""
    model = read_study_json(folder)["description"].get("latency", {})
    usual = {"batch_size": 1, "threads": 1, "precision": "float32"}
    setting = {name: model.get("setting", {}).get(name, value) for name, value in usual.items()}
    is_of_cpu = model.get("setting", {}).get("device") == "cpu"  # where there is a GPU, that is not usual
    return (" --device cpu" if is_of_cpu else "") + "".join(
        f" --{name.replace('_', '-')} {value}" for name, value in setting.items() if value != usual[name]
    )


def _print_result(spec: StudySpec, result: StudyResult) -> None:
    """Print the front, why trials failed, and where the files are."""
    front = result.front
    if front:
        networks = format_count(len(front), "network")
        click.echo(f"\nPareto front: {networks}, hypervolume {result.hypervolume:.4f}")
        click.echo(
            f"without the sampler's own trials: hypervolume {result.hypervolume_without_sampler:.4f}; "
            f"on the front: {_count_sources(front)}"
        )
        click.echo(format_front(front[:N_ROWS], spec.objectives))
        if len(front) > N_ROWS:
            click.echo(f"... and {len(front) - N_ROWS} more in {result.folder.front_csv}")
    if failures := describe_failures(result.records):
        click.echo("\n".join(failures))
    if n_refused := result.n_refused:
        refused = format_count(n_refused, "architecture")
        click.echo(f"refused before they started: {refused} above a limit; the tables leave them out")
    folder = result.folder
    _print_finalists(spec, result)
    files = (folder.front_csv, folder.trials_csv, folder.front_html, folder.front_png)
    if there := [str(path) for path in files if path.exists()]:
        click.echo(f"\nfiles:  {', '.join(there)}")
    if folder.models_dir.exists():
        click.echo(f"models: {folder.models_dir}/<trial>")
    if front:
        own = f" --network FILE.py:{spec.identity('network')['name']}" if callable(spec.network) else ""
        modelled = "latency_ms is modelled; " if spec.needs_latency else ""
        command = f"dirprune latency {shlex.quote(str(folder.root))}{own}{_name_setting(folder)}"
        click.echo(f"next:   {modelled}{command} measures what these networks take")
