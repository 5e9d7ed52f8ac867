"""What options have in common: types that say what they expected, and options of more than one command."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from dirprune.addresses import holds_password
from dirprune.errors import ConfigurationError, suggest

Function = TypeVar("Function", bound=Callable[..., Any])


LARGEST = 2**63 - 1

LAPLACE = "laplace"
"""The posterior of `dirprune covariances` that is no importance method."""
MIN_R2 = 0.3
"""`dirprune explain` explains no surrogate that predicts unseen trials worse than this."""

RECIPE_NAMES = ("plain", "cifar", "images")
TRAINING_EPOCHS = 20.0
FINE_TUNING_EPOCHS = 10.0
MAX_EPOCHS = 200.0
"""Where early stopping is asked for without --epochs."""
TRAINING_LR = 4e-3
TRAINING_BATCH_SIZE = 128
"""What `Recipe` has, which help does not import."""


class WholeNumber(click.ParamType):
    """A whole number that is not below `least`, nor above what a seed may be."""

    name = "N"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail saying which ones are possible."""
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if number < self.least:
            self.fail(f"expected a whole number of at least {self.least}, got {str(value)!r}", param, ctx)
        if number > LARGEST:
            self.fail(f"expected a whole number of at most {LARGEST}, got {str(value)!r}", param, ctx)
        return number


class Number(click.ParamType):
    """A finite number above `above`."""

    name = "X"

    def __init__(self, above: float = 0.0) -> None:
        self.above = above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail saying which ones are possible."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > self.above):
            self.fail(f"expected a number above {self.above:g}, got {str(value)!r}", param, ctx)
        return number


class KeyValue(click.ParamType):
    """One option of an importance method, written as key=value."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return (key, value), or fail with an example."""
        key, separator, text = str(value).partition("=")
        if not separator or not key.strip():
            self.fail(f"expected key=value, got {str(value)!r}; for example norm=l2", param, ctx)
        return key.strip(), text.strip()


class OneOf(click.Choice[str]):
    """One of some names; of an unknown one the nearest is said."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return what is wrong with a name."""
        return f"unknown {str(value)!r}{suggest(str(value), map(str, self.choices))}"


class FilePath(click.ParamType):
    """A path; whether something is there is for the command to say, in its own words."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, with ~ resolved."""
        if not str(value):
            self.fail("expected a path, got nothing", param, ctx)
        return Path(value).expanduser()


class PlacePath(FilePath):
    """A folder, or the address of one in an object store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an address as it is, and of a folder the path."""
        protocol, separator, rest = str(value).partition("://")
        if separator and protocol != "file":
            return str(value)
        return super().convert(rest if separator else value, param, ctx)


FILE = FilePath("FILE")
FOLDER = FilePath("DIR")
PLACE = PlacePath("DIR|URI")


@dataclass(frozen=True)
class DataOptions:
    """Where images come from and what they are used for, as given; None where nothing was given."""

    data: Path | str | None
    dataset: str | None
    validation_from: str | None
    train_images: int | None
    seed: int
    device: str | None


@dataclass(frozen=True)
class TrainingOptions:
    """How weights are trained, as given; None where nothing was given."""

    recipe: str | None = None
    epochs: float | None = None
    early_stopping: int | None = None
    lr: float | None = None
    batch_size: int | None = None


OPTIONS_OF_METHODS = ("evaluations", "statistic", "k", "adding", "cost")
"""Options of methods that are options of the command line too; `--k 3` is `--method-options k=3`."""


@dataclass(frozen=True)
class MethodOptions:
    """How channels are scored, as given."""

    method: str | None
    method_options: tuple[tuple[str, str], ...]
    cache: Path
    memory_mb: int
    evaluations: str | None = None
    statistic: str | None = None
    k: str | None = None
    adding: str | None = None
    cost: str | None = None

    def values(self) -> dict[str, str]:
        """Return the method's options as a mapping, those with an option of their own included.

        Raises:
            ConfigurationError: If an option is given twice.
        """
        values: dict[str, str] = {}
        own = [(name, getattr(self, name)) for name in OPTIONS_OF_METHODS]
        for key, value in [*self.method_options, *((name, text) for name, text in own if text is not None)]:
            if key in values:
                raise ConfigurationError(
                    f"expected each method option once, got {key}={values[key]} and {key}={value}; "
                    "leave one out"
                )
            values[key] = value
        return values


def _collected(name: str, kind: type, *decorators: Callable[[Function], Function]) -> Callable[..., Any]:
    """Return a decorator that adds options and hands their values over together, as argument `name`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def collecting(**given: Any) -> Any:
            own = {field.name: given.pop(field.name) for field in fields(kind)}
            return function(**given, **{name: kind(**own)})

        for decorator in reversed(decorators):
            collecting = decorator(collecting)
        return collecting

    return decorate


data_options = _collected(
    "data",
    DataOptions,
    click.option(
        "--data",
        type=PLACE,
        help="Folder of the data set, or the URI of images, such as s3://bucket/images. "
        "Default: the handwritten digits of scikit-learn.",
    ),
    click.option(
        "--dataset",
        metavar="NAME",
        help="digits, mnist, cifar10, ...; folders:112: any images of so many pixels, in memory up to 4 GiB; "
        "stream:112: decoded when they are wanted, so that random crops come from the whole files; "
        "folders:224/256: the middle 224 pixels of images whose shorter side is resized to 256. "
        "Default: mnist with --data.",
    ),
    click.option(
        "--validation-from",
        metavar="WHERE:F",
        help="Take validation from the training set (train:0.1) or from the held-out set (test:0.5).",
    ),
    click.option("--train-images", type=WholeNumber(), help="Use only so many training images."),
    click.option("--seed", type=WholeNumber(0), default=0, show_default=True, help="Decides all randomness."),
    click.option("--device", metavar="NAME", help="cpu or cuda. Default: cuda where there is one."),
)
"""Where images come from and what they are used for: handed over as `data`."""

training_options = _collected(
    "training",
    TrainingOptions,
    click.option(
        "--recipe",
        type=OneOf(RECIPE_NAMES),
        help="plain: AdamW, images as they are; cifar and images: SGD, and images are shifted or cropped and "
        "mirrored (digits are not), as studies/resnet20.py and studies/resnet50.py do it. Default: cifar for "
        "CIFAR, images for folders and streams, plain for all else.",
    ),
    click.option(
        "--epochs",
        type=Number(),
        help=f"Passes over the training images. Default: {TRAINING_EPOCHS:g} from scratch, "
        f"{FINE_TUNING_EPOCHS:g} after pruning, at most {MAX_EPOCHS:g} with --early-stopping.",
    ),
    click.option(
        "--early-stopping",
        type=WholeNumber(),
        metavar="N",
        help="Stop after N epochs without better validation accuracy, and keep the best weights.",
    ),
    click.option(
        "--lr",
        type=Number(),
        help=f"Peak learning rate; it falls along a cosine. Default: the recipe's; {TRAINING_LR:g} of plain.",
    ),
    click.option(
        "--batch-size", type=WholeNumber(), help=f"Images per step. Default: {TRAINING_BATCH_SIZE}."
    ),
)
"""How weights are trained: handed over as `training`."""

MEMORY: dict[str, Any] = {
    "type": WholeNumber(),
    "metavar": "N",
    "default": 1024,
    "show_default": True,
    "help": "Memory in MiB that scoring may take beside the network and the images; scores stay the same.",
}
"""What `--memory-mb` takes, wherever there is scoring."""

memory_option = click.option("--memory-mb", **MEMORY)

cache_option = click.option(
    "--cache",
    type=FOLDER,
    default=Path("output/scores"),
    show_default=True,
    help="Folder of known scores, so that the same ones are never computed twice.",
)
"""Where scores are kept: handed over as `cache`."""

method_options = _collected(
    "scoring",
    MethodOptions,
    click.option(
        "--method",
        metavar="NAME",
        help="Importance method; `dirprune rank --list` shows them. One of your own: FILE.py:NAME, where the "
        "file registers it; the file is run.",
    ),
    click.option(
        "--method-options",
        type=KeyValue(),
        multiple=True,
        help="Option of the method, such as norm=l2; may be given several times.",
    ),
    click.option(
        "--evaluations",
        metavar="N",
        help="Coalitions that a method evaluates in each group; or auto: more and more, until it is settled "
        "which half of a group stays (another share: --method-options cut=0.3).",
    ),
    click.option("--statistic", metavar="NAME", help="mean, or snr: mean over standard deviation."),
    click.option("--k", metavar="N", help="Channels that shapley-partial adds to none or takes from all."),
    click.option(
        "--adding", metavar="WHICH", help="yes (only adds to none), no (only takes from all), both."
    ),
    click.option("--cost", metavar="NAME", help="macs, parameters or latency: what a greedy path saves."),
    cache_option,
    memory_option,
)
"""How channels are scored: handed over as `scoring`."""


def refuse_password(context: click.Context, option: click.Parameter, address: str | None) -> str | None:
    """Return an address of a database or a server; one that holds a password comes from the environment.

    Every user of the machine sees command lines, and Ray copies a driver's into its job table and dashboard.

    Raises:
        ConfigurationError: Without the password, if it is on the command line.
    """
    is_typed = context.get_parameter_source(option.name or "") == ParameterSource.COMMANDLINE
    if address and is_typed and holds_password(address):
        scheme = re.match(r"[A-Za-z][\w+.-]*://", address)
        ways = {
            "http": "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            "postgresql": "in PGPASSWORD or ~/.pgpass",
        }
        found = [way for start, way in ways.items() if scheme and address.startswith(start)]
        raise ConfigurationError(
            f"expected {option.opts[0]} without a password, got what may be one in "
            f"{scheme[0] if scheme else ''}..., where all users and Ray's dashboard see it; give it "
            f"{', or '.join([*found, f'the whole address in {option.envvar}'])}"
        )
    return address


OPTUNA_STORAGE = "DIRPRUNE_OPTUNA_STORAGE"
TRACKING_URI = "MLFLOW_TRACKING_URI"
"""Where addresses stand that hold a password."""

storage_option = click.option(
    "--optuna-storage",
    "storage_url",
    default="",
    metavar="URL",
    envvar=OPTUNA_STORAGE,
    show_envvar=True,
    callback=refuse_password,
    help="Database of the study's trials, where it has no journal file.",
)
"""Where a study that has been run keeps its trials."""

network_option = click.option(
    "--network",
    metavar="FILE.py:NAME",
    help="The function or class that made the network, where it is your own; the file is run.",
)
"""What a model of a user's own network is rebuilt with."""


def check_can_write(path: Path, *, is_folder: bool, option: str = "--output") -> None:
    """Check that a path can be written, without creating anything.

    Args:
        path: Where something is going to be written.
        is_folder: Whether it is going to be a folder, else a file.
        option: The command line option that says where.
    Raises:
        ConfigurationError: If the path or a folder above it is of the other kind or must not be written.
    """
    what = "an output folder" if is_folder else "an output file"
    place = path.absolute()
    if place.exists() and place.is_dir() != is_folder:
        reason = "a file has that name" if is_folder else "a folder has that name"
    else:
        existing = next(above for above in (place, *place.parents) if _exists(above))
        if existing != place and not existing.is_dir():
            reason = f"{existing} is not a folder"
        elif not os.access(existing, os.W_OK):
            reason = f"no right to write to {existing}"
        else:
            return
    raise ConfigurationError(
        f"expected {what} that can be written, got {path} ({reason}); try another {option}"
    )


def _exists(path: Path) -> bool:
    """Return whether something is there; below a regular file nothing is."""
    try:
        return path.exists()
    except OSError:
        return False
