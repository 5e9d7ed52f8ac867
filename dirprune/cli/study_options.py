"""The options of a study's command line, by what they are about; the spec says their defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click import Option

from dirprune.cli.options import (
    FILE,
    FOLDER,
    MEMORY,
    OPTUNA_STORAGE,
    PLACE,
    TRACKING_URI,
    Number,
    OneOf,
    WholeNumber,
    refuse_password,
)
from dirprune.cli.study_arguments import NO_FLOOR
from dirprune.cli.study_types import Amounts, Duration, Epochs, Metrics, Objectives
from dirprune.data import is_downloaded
from dirprune.halving import KINDS
from dirprune.study.shapes import SHAPES
from dirprune.study.space import WARM_STARTS_FROM
from dirprune.study.spec import StudySpec
from dirprune.study.stopping import PATIENCE_SHARE
from dirprune.tuning.cluster import LOCAL
from dirprune.tuning.finalists import FinalistOptions
from dirprune.tuning.samplers import CHOICES


def study_options(spec: StudySpec) -> dict[str, list[Option]]:
    """Return the options by heading, in the order in which the help shows them."""
    return {
        "Network and data": _network_and_data(spec),
        "What is traded, and limits": _objectives_and_limits(spec),
        "What is searched": _space(spec),
        "A trial": _trial(spec),
        "Finalists": _finalists(spec),
        "The study and where it lies": _places(spec),
        "Machines": _machines(),
    }


def _network_and_data(spec: StudySpec) -> list[Option]:
    if spec.embedded:
        default = f"the embedded {spec.embedded['data']}"
    elif is_downloaded(spec.data):
        default = "downloaded into the cache"
    else:
        default = "none, nothing is downloaded"
    return [
        Option(
            ["--network"],
            metavar="NAME",
            help="Another network by name, such as resnet20 or torchvision/resnet18; its study has its name. "
            f"Default: {spec.network if isinstance(spec.network, str) else 'its own'}.",
        ),
        Option(
            ["--data"],
            type=PLACE,
            help=f"Folder of the data set, or the URI of images, such as s3://bucket/images. "
            f"Default: {default}.",
        ),
        Option(
            ["--dataset"],
            metavar="NAME",
            help="Another data set by name, such as fashion_mnist, stream:224 or folders:224/256.",
        ),
        Option(
            ["--weights"],
            type=FILE,
            help="Trained weights of the dense network. Default: train it once and keep it.",
        ),
        Option(
            ["--validation-from"],
            metavar="WHERE:F",
            default="",
            help="train:0.1 carves validation from the training set, test:0.5 from the held-out set. "
            "Default: by what the weights have seen.",
        ),
        Option(
            ["--train-images"], type=WholeNumber(), help="Use only so many training images. Default: all."
        ),
        Option(
            ["--judged-images"],
            type=WholeNumber(),
            help="Judge networks on so many images of validation and as many of test. Default: all.",
        ),
        Option(
            ["--dense-epochs"],
            type=Number(),
            help="Training of the dense network, where no weights are given. "
            f"Default: {_tell(spec, lambda spec: spec.dense_epochs)}.",
        ),
    ]


def _objectives_and_limits(spec: StudySpec) -> list[Option]:
    return [
        Option(
            ["--objectives"],
            type=Objectives(),
            help="What is traded: val_<metric>, macs, parameters, latency_ms, each with its direction. "
            f"Default: {','.join(map(str, spec.objectives))}.",
        ),
        Option(
            ["--reference-point"],
            type=Metrics(),
            help="Worst acceptable values, the hypervolume's corner. Default: dense cost; the least "
            "accuracy, or chance.",
        ),
        Option(
            ["--min-val-accuracy"],
            metavar="A",
            help="Look for no network below it: 0.95, or dense-0.02 for two points below the dense network; "
            f"{NO_FLOOR} looks for all. Default: {spec.min_val_accuracy or NO_FLOOR}.",
        ),
        Option(
            ["--max-macs"],
            type=Number(),
            help="Start no trial above so many MACs; a dense network above runs, but is not on the front.",
        ),
        Option(["--max-parameters"], type=Number(), help="Start no trial above so many parameters."),
        Option(["--max-latency"], type=Number(), metavar="MS", help="Start no trial that takes longer."),
        Option(
            ["--latency"],
            type=FILE,
            help="Latencies that dirprune fit-latency measured. Default: measured here, if asked for.",
        ),
        Option(
            ["--latency-batch"],
            type=WholeNumber(),
            help="Inputs of the batch whose latency counts. Default: 1; those of --latency FILE, or of the "
            "study that goes on.",
        ),
    ]


def _space(spec: StudySpec) -> list[Option]:
    return [
        Option(
            ["--methods"], metavar="A,B", help=f"Importance methods. Default: {','.join(spec.space.methods)}."
        ),
        Option(
            ["--architectures"],
            type=OneOf(SHAPES),
            help="Draw a width for each group, or a cost target and offsets to equal keep ratios "
            "(budgeted) or to the scores of the importance method (ranked). "
            f"Default: {spec.space.architectures}.",
        ),
        Option(
            ["--min-keep-ratio"],
            type=Number(),
            help="Smallest share of each group to keep. "
            f"Default: {_tell(spec, lambda spec: spec.space.min_keep_ratio)}.",
        ),
        Option(
            ["--channel-multiple"],
            type=WholeNumber(),
            help="Keep channels in multiples, counted one by one where they go in parts, or all of a group; "
            "8 suits most GPUs. "
            f"Default: {spec.space.channel_multiple}.",
        ),
        Option(
            ["--warm-starts"],
            type=WholeNumber(0),
            help="Trials to begin with that promise most for their cost; 0: none. "
            f"Default: {spec.space.warm_starts}.",
        ),
        Option(
            ["--warm-starts-from"],
            type=OneOf(WARM_STARTS_FROM),
            help="What tells of it: what the network loses when its groups are cut one at a time, or along "
            f"the path of greedy elimination, which takes longer. Default: {spec.space.warm_starts_from}.",
        ),
        Option(
            ["--sampler"],
            type=OneOf(CHOICES),
            default="auto",
            show_default=True,
            help="What chooses the trials; --resume may go on with another.",
        ),
        Option(["--trials"], type=int, help=f"Trials to start in all. Default: {spec.trials}."),
        Option(
            ["--patience"],
            type=WholeNumber(),
            help="End the search after so many settled trials without growth of the hypervolume, once some "
            "network is above the least accuracy. Default: never.",
        ),
        Option(
            ["--patience-share"],
            type=Number(),
            help="With --patience: growth of the hypervolume that counts, as a share of it. "
            f"Default: {PATIENCE_SHARE:g}.",
        ),
        Option(
            ["--time-limit"],
            type=Duration(),
            help="End in order after 90 (seconds), 15m or 2h; --resume goes on. Default: never.",
        ),
    ]


def _tell(spec: StudySpec, read: Callable[[StudySpec], float]) -> str:
    """Return the default of a number, and what it is on the embedded data where that differs."""
    given, embedded = read(spec), read(spec.for_data(None))
    told = "" if given == embedded else f"; {embedded:g} on the embedded {spec.embedded['data']}"
    return f"{given:g}{told}"


def _trial(spec: StudySpec) -> list[Option]:
    return [
        Option(
            ["--epochs"],
            type=float,
            help=f"Fine-tuning of a trial; fractions work. Default: {_tell(spec, lambda spec: spec.epochs)}.",
        ),
        Option(
            ["--reconstruct/--no-reconstruct"],
            default=None,
            help="Refit the layers behind the cuts by least squares before fine-tuning, or only estimate "
            f"batch norm's statistics anew. Default: {'refit' if spec.reconstruct else 'estimate'}.",
        ),
        Option(
            ["--halving"],
            type=OneOf(KINDS),
            help="At a rung, end the trials that are not among the best, let them pause until they are, or "
            "let all run to their end. What a study begins with (dense, warm starts, uniform and reference "
            f"architectures) always does. Default: {spec.halving}.",
        ),
        Option(
            ["--rungs"],
            type=Epochs(),
            help="Epochs after which trials are compared, below --epochs; 0 is right after pruning. "
            f"Default: {','.join(f'{rung:g}' for rung in spec.rungs)}.",
        ),
        Option(
            ["--reduction-factor"],
            type=Number(),
            help=f"At a rung one trial in so many goes on. Default: {spec.reduction_factor:g}.",
        ),
    ]


def _finalists(spec: StudySpec) -> list[Option]:
    changed = ", ".join(f"{name} {value}" for name, value in spec.final_fine_tuning.items())
    recipe = f" The recipe is a trial's but for {changed}." if changed else ""
    return [
        Option(
            ["--finalists"],
            type=WholeNumber(),
            help="After the search, train so many members of the front again. Default: none.",
        ),
        Option(
            ["--final-epochs"],
            type=Number(),
            help=f"Fine-tuning of a finalist; fractions work.{recipe} Default: that of a trial.",
        ),
        Option(
            ["--final-seeds"],
            type=WholeNumber(),
            help=f"Trainings of each finalist. Default: {FinalistOptions.n_seeds}.",
        ),
    ]


def _places(spec: StudySpec) -> list[Option]:
    return [
        Option(["--name"], help=f"Name of the study and of its folder. Default: {spec.name}."),
        Option(["--resume"], is_flag=True, help="Continue the study of that name, if there is one."),
        Option(["--seed"], type=WholeNumber(0), help=f"Decides all randomness. Default: {spec.seed}."),
        Option(
            ["--output"],
            type=FOLDER,
            default=Path("output"),
            show_default=True,
            envvar="DIRPRUNE_OUTPUT",
            show_envvar=True,
            help="Folder of all studies; on a cluster one that all nodes share, unless --storage is given.",
        ),
        Option(
            ["--storage"],
            default="",
            metavar="URI",
            envvar="DIRPRUNE_STORAGE",
            show_envvar=True,
            help="Where the machines of a cluster exchange checkpoints, scores, models and results: a shared "
            "folder or s3://bucket/folder. One that fails is tried again for 120 seconds, or as many as "
            "DIRPRUNE_STORAGE_PATIENCE says. Default: all machines share the output folder.",
        ),
        Option(
            ["--optuna-storage"],
            default="",
            metavar="URL",
            envvar=OPTUNA_STORAGE,
            show_envvar=True,
            callback=refuse_password,
            help="Database for the trials. Default: a journal file.",
        ),
        Option(
            ["--tracking-uri"],
            metavar="URI",
            envvar=TRACKING_URI,
            show_envvar=True,
            callback=refuse_password,
            help="MLflow server. Default: sqlite:///<output>/mlflow.db.",
        ),
        Option(
            ["--no-tracking"],
            is_flag=True,
            help="Run without MLflow; files and front are written all the same.",
        ),
        Option(
            ["--register"],
            metavar="NAME",
            help="In the end, register the front's models in MLflow as versions of this one.",
        ),
    ]


def _machines() -> list[Option]:
    return [
        Option(
            ["--ray-address"],
            default=LOCAL,
            show_default=True,
            envvar="RAY_ADDRESS",
            show_envvar=True,
            help="local, auto (the cluster of this machine), or an address.",
        ),
        Option(
            ["--cpus-per-trial"],
            type=Number(),
            help="CPU cores of a trial; 0.5 lets two share one. Streamed images are decoded by so many "
            "processes in each trial. Default: 1.",
        ),
        Option(
            ["--gpus-per-trial"],
            type=float,
            help="GPUs of a trial: 0.5 puts two trials on one, 4 lets four train one trial together, "
            "with 0 trials compute on the CPU. "
            "Default: 1 where there are any.",
        ),
        Option(
            ["--resources-per-trial"],
            type=Amounts(),
            help="All that a trial needs of a node, by Ray's names, as in CPU=2,GPU=0.5,memory=4GiB,A100=1; "
            "CPU and GPU are the two options above.",
        ),
        Option(
            ["--workers-per-trial"],
            type=WholeNumber(),
            help="Processes that train a trial together, each on a part of every batch. Default: one for "
            "each GPU.",
        ),
        Option(["--memory-mb"], **MEMORY),
        Option(
            ["--max-concurrent"],
            type=WholeNumber(),
            help="Trials at once. Default: as many as fit, also on nodes that a cluster may still get.",
        ),
    ]
