"""What the benchmarks of importance share: the networks, rows on disk, and the clock."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.data import DataRoles, load_data, make_roles
from dirprune.data.roles import FOREIGN_SPLIT, OWN_SPLIT
from dirprune.evaluation import evaluate
from dirprune.files import read_json, write_json
from dirprune.groups import Grouping
from dirprune.importance import ScoringContext, get_method, list_methods
from dirprune.latency import name_processor
from dirprune.networks import create_network, load_weights_
from dirprune.networks.weights import read_metadata
from dirprune.pruning import recalibrate_
from dirprune.recipe import Recipe
from dirprune.surgery import compact
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from dirprune.training import train_

ARCHITECTURE_SEED = 2026
N_CIFAR_TRAIN = 10_000  # calibration is the half of it: 5,000 images, as on MNIST
N_TEST = {"mnist": 5_000, "cifar10": 2_000}  # images at most, drawn at random
N_RECALIBRATION = 2_000
MADE_OF = "made-of.json"
CIFAR_NETWORKS = ("resnet20", "resnet56", "vgg16")
LONG_RUN = 400_000
OLDER: Mapping[str, Mapping[str, int]] = {
    "after-fine-tuning": {"n_images": 1000},
    "reference-ranking": {"truth_images": 5000, "long_run": LONG_RUN},
}
"""What keys of older rows mean that do not say it: the defaults."""


@dataclass(frozen=True)
class Setting:
    """What the command line says.

    Attributes:
        output: Folder of all rows, tables and plots.
        mnist: Folder of MNIST; without it the digits that come with scikit-learn.
        lenet_weights: Trained LeNet-5s; without any, one is trained for a few epochs.
        cifar: Folder of CIFAR-10; without it noise, which is good enough for times.
        cifar_weights: Weights of networks for CIFAR, by name; random ones without.
        device: Where to compute.
        is_quick: Whether everything is as small as it can be, to see that it runs.
    """

    output: Path
    mnist: Path | None
    lenet_weights: tuple[Path, ...]
    cifar: Path | None
    cifar_weights: Mapping[str, Path]
    device: str
    is_quick: bool

    def rows(self, name: str) -> Rows:
        """Return the rows of one benchmark."""
        return Rows(self.output / f"{name}.jsonl", {"device": "cpu"} | OLDER.get(name, {}))


@dataclass(frozen=True)
class Subject:
    """A network with its data.

    Attributes:
        name: In tables.
        network: In evaluation mode, on the device.
        roles: Its data; the weights have not seen the test role.
        grouping: Its channel groups.
        device: Where to compute.
        is_trained: Whether accuracies mean anything.
    """

    name: str
    network: nn.Module
    roles: DataRoles
    grouping: Grouping
    device: str
    is_trained: bool

    @property
    def is_lenet(self) -> bool:
        """Whether it is one of the LeNet-5s."""
        return self.name.startswith("lenet5")

    def context(self, n_images: int, seed: int = 0) -> ScoringContext:
        """Return what a method sees: the first n calibration images, drawn at random and class-balanced."""
        positions = torch.arange(min(n_images, len(self.roles.calibration)))
        return ScoringContext(
            self.network,
            self.grouping,
            self.roles.calibration.subset(positions),
            self.roles.normalise,
            make_task(),
            seed,
            self.device,
        )

    def cut(self, kept: Mapping[str, Sequence[int]]) -> nn.Module:
        """Return the compact network, batch-norm statistics as they were."""
        return compact(self.network, self.grouping, kept, self.roles.example_input().to(self.device)).eval()

    def recalibrate_(self, network: nn.Module) -> None:
        """Estimate batch-norm statistics anew on `N_RECALIBRATION` calibration images, in place."""
        context = self.context(N_RECALIBRATION)
        recalibrate_(network, context.calibration, context.normalise, self.device)

    def measure_test_accuracy(self, network: nn.Module) -> float:
        """Return the accuracy on the test role, in [0, 1]."""
        return evaluate(network, self.roles.test, self.roles, make_task(), self.device, "")["accuracy"]


def load_lenets(setting: Setting) -> list[Subject]:
    """Return a LeNet-5 for each weights file, on the data on which it was trained."""
    if not setting.lenet_weights:
        roles = _load_lenet_data(setting, OWN_SPLIT, 0)
        network = create_network("lenet5", seed=0)
        recipe = Recipe(images=(2 if setting.is_quick else 5) * len(roles.train))
        for _ in train_(network, roles, make_task(), recipe, seed=0, device=setting.device):
            pass
        return [_make_subject("lenet5", network, roles, setting, is_trained=True)]
    subjects = []
    for number, path in enumerate(setting.lenet_weights):
        network = create_network("lenet5")
        load_weights_(network, path)
        said = read_metadata(path)
        roles = _load_lenet_data(
            setting, said.get("validation_from", OWN_SPLIT), int(said.get("data_seed", 0))
        )
        subjects.append(_make_subject(f"lenet5-{number}", network, roles, setting, is_trained=True))
    return subjects


def _load_lenet_data(setting: Setting, validation_from: str, seed: int) -> DataRoles:
    name = "digits" if setting.mnist is None else "mnist"
    return load_data(name, setting.mnist, validation_from=validation_from, seed=seed)


def load_cifar_subject(name: str, setting: Setting) -> Subject:
    """Return a network for CIFAR by its name; published weights have seen the whole training set.

    Validation is therefore a half of the test set, and the test role is drawn from the other half.
    """
    weights = setting.cifar_weights.get(name)
    network = create_network(name, seed=0)
    if weights is not None:
        load_weights_(network, weights)
    if setting.cifar is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (2000, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.arange(2000) % 10
        roles = make_roles(
            "noise", images, labels, images.clone(), labels, validation_from=FOREIGN_SPLIT, n_classes=10
        )
    else:
        roles = load_data(
            "cifar10", setting.cifar, validation_from=FOREIGN_SPLIT, train_limit=N_CIFAR_TRAIN, seed=0
        )
    is_trained = weights is not None and setting.cifar is not None
    return _make_subject(name, network, roles, setting, is_trained)


def _make_subject(
    name: str, network: nn.Module, roles: DataRoles, setting: Setting, is_trained: bool
) -> Subject:
    grouping = find_groups(network.cpu(), roles.example_input())
    drawn = torch.randperm(len(roles.test), generator=torch.Generator().manual_seed(0))
    test = roles.test.subset(drawn[: N_TEST.get(roles.name)])
    roles = dataclasses.replace(roles, test=test)
    return Subject(name, network.to(setting.device).eval(), roles, grouping, setting.device, is_trained)


def draw_architectures(
    grouping: Grouping, n_architectures: int, least: float, most: float, seed: int = ARCHITECTURE_SEED
) -> list[Architecture]:
    """Draw architectures: the keep ratio of every group is uniform in [least, most], independently.

    The law is fixed: the first of many architectures are those of few.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(n_architectures):
        ratios = least + (most - least) * torch.rand(len(grouping.groups), generator=generator)
        kept = {
            group.name: max(1, round(float(ratio) * group.n_channels))
            for group, ratio in zip(grouping.groups, ratios, strict=True)
        }
        drawn.append(Architecture(kept))
    return drawn


class Rows:
    """JSON lines that are appended as soon as something is measured, so that nothing is measured twice.

    Args:
        path: The file; a last line that was cut short is not counted.
        defaults: What keys that do not say it mean, because they are older.
    """

    def __init__(self, path: Path, defaults: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.defaults = dict(defaults or {})
        self._rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self._rows.append(json.loads(line))
                except ValueError:
                    continue
        self._done = {self._name(row["key"]) for row in self._rows}

    def is_done(self, **key: Any) -> bool:
        """Return whether there is a row of this key."""
        return self._name(key) in self._done

    def add(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Append a row."""
        row = {"key": dict(key), "values": dict(values)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._is_cut_short() + json.dumps(row) + "\n")
        self._rows.append(row)
        self._done.add(self._name(key))

    def _is_cut_short(self) -> bool:
        return (
            self.path.exists()
            and not self.path.read_bytes().endswith(b"\n")
            and bool(self.path.stat().st_size)
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield key and values of every row together."""
        return ({**self.defaults, **row["key"], **row["values"]} for row in self._rows)

    def select(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the rows that have these values."""
        return [row for row in self if all(row.get(name) == value for name, value in wanted.items())]

    def _name(self, key: Mapping[str, Any]) -> str:
        return json.dumps({**self.defaults, **key}, sort_keys=True)


def measure_alternating(sides: Mapping[str, Callable[[], Any]], n_repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of every side in every repetition; the sides take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(n_repetitions):
        for name, run in sides.items():
            seconds[name].append(measure_seconds(run))
    return seconds


def measure_seconds(run: Callable[[], Any]) -> float:
    """Return how long a call takes: processor seconds of this process, or the wall time where a GPU works.

    On a machine that others use, processor time is what counts; with one thread, as the benchmarks run by
    default, it is the wall time of a machine that nobody else uses.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def format_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, and the lowest and highest of several values."""
    median = f"{statistics.median(values):,.{digits}f}"
    return (
        median if len(values) == 1 else f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
    )


def format_mean(values: Sequence[float], digits: int = 1, factor: float = 1.0) -> str:
    """Return the mean and, of several values, their standard deviation; nothing of none."""
    if not values:
        return ""
    scaled = [factor * value for value in values]
    mean = f"{statistics.fmean(scaled):.{digits}f}"
    return mean if len(scaled) < 2 else f"{mean} ± {statistics.stdev(scaled):.{digits}f}"


def _find_subjects(folder: Path) -> set[str]:
    """Return the networks that rows in a folder are of; an empty name where one does not say it."""
    return {row.get("subject", "") for path in folder.glob("*.jsonl") for row in Rows(path)}


def claim_folder(setting: Setting) -> None:
    """Note on which machine and of what rows are measured; refuse a folder with rows of something else.

    Raises:
        BadParameter: If rows in the output folder are of other weights, of other versions of methods, of real
            data where there are none now or the other way round, or there is nothing that says of what.
    """
    path = setting.output / MADE_OF
    files: dict[str, Path | None] = {"lenet5-0": None} | dict.fromkeys(CIFAR_NETWORKS)  # None: of random ones
    files |= {f"lenet5-{number}": file for number, file in enumerate(setting.lenet_weights)}
    files |= setting.cifar_weights
    made_of = {
        "weights": {
            name: None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
            for name, file in files.items()
        },
        "data_or_sizes": {
            "mnist": setting.mnist is not None,
            "cifar": setting.cifar is not None,
            "quick": setting.is_quick,
        },
        "method_versions": {name: get_method(name).version for name in list_methods()},
    }
    if not path.exists() and any(setting.output.glob("*.jsonl")):
        raise click.BadParameter(
            f"{setting.output} has rows, and no {MADE_OF} that says of what; try another folder",
            param_hint="--output",
        )
    before = read_json(path, schema=1) if path.exists() else {}
    weights = before.get("weights", {})
    for name in [name for name, known in weights.items() if known is None]:
        measured = _find_subjects(setting.output)
        if not any(not subject or subject.startswith(name.removesuffix("-0")) for subject in measured):
            del weights[name]  # random ones that nothing was measured with
    for what, found in made_of.items():
        earlier = before.get(what, {})
        changed = sorted(name for name in found.keys() & earlier.keys() if found[name] != earlier[name])
        if changed:
            raise click.BadParameter(
                f"{setting.output} has rows of other {what.replace('_', ' ')} ({', '.join(changed)}); "
                "try another folder",
                param_hint="--output",
            )
        made_of[what] = {**earlier, **found}
    _write_machine(setting)
    write_json(path, made_of, schema=1)


def _write_machine(setting: Setting) -> None:
    """Note on which machine the rows were measured."""
    is_cuda = setting.device.startswith("cuda")
    machine = {
        "processor": name_processor(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if is_cuda else setting.device,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
    }
    write_json(setting.output / "machine.json", machine, schema=1)


def to_list(values: Tensor) -> list[float]:
    """Return a tensor of numbers for a row."""
    return [float(value) for value in values]
