"""One shot beside Torch-Pruning's own pruners, at equal MACs, on the same images, with the same repairs."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
import numpy as np
import torch_pruning
from importance_common import Rows, Setting, Subject, format_mean, load_cifar_subject
from importance_widths import Widths
from torch import nn

from dirprune.allocation import allocate
from dirprune.architecture import Architecture
from dirprune.cli.printing import format_table
from dirprune.importance import create, select_channels
from dirprune.importance.greedy import compute_path
from dirprune.recipes import CIFAR_FINE_TUNING
from dirprune.reconstruction import N_IMAGES, reconstruct_
from dirprune.sensitivity import Cuts, measure_curves
from dirprune.tasks import make_task
from dirprune.training import train_

N_SCORING = 500  # images that judge, on both sides
N_STEPS = 100  # of Torch-Pruning on its way to `MAX_REMOVED`
N_WIDTHS = 5  # at which a curve of sensitivity is measured
MAX_REMOVED = 0.9
PEER = "Torch-Pruning"


@dataclass(frozen=True)
class PeerPruner:
    """A pruner of Torch-Pruning, used as its examples use it.

    Attributes:
        make_importance: Makes a fresh scorer: those of the library keep state.
        is_global: Whether channels of all layers are compared, else each layer loses as large a share.
        needs_gradients: Whether gradients are computed anew before each step.
    """

    make_importance: Callable[[], Any]
    is_global: bool = True
    needs_gradients: bool = False

    def walk(self, subject: Subject) -> Iterator[tuple[nn.Module, Architecture]]:
        """Yield ever smaller networks; only what may be cut is cut, the rest would change the outputs."""
        network = copy.deepcopy(subject.network)
        layers = {name: network.get_submodule(name) for name in subject.grouping.n_channels}
        others = [
            layer
            for layer in network.modules()
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in layers.values()
        ]
        example = subject.roles.example_input().to(subject.device)
        pruner = torch_pruning.pruner.BasePruner(
            network,
            example,
            importance=self.make_importance(),
            global_pruning=self.is_global,
            pruning_ratio=MAX_REMOVED,
            max_pruning_ratio=MAX_REMOVED,
            iterative_steps=N_STEPS,
            ignored_layers=others,
        )
        for _ in range(N_STEPS):
            if self.needs_gradients:
                self._compute_gradients(network, subject)
            pruner.step()
            yield network, Architecture({name: layer.out_channels for name, layer in layers.items()})

    def _compute_gradients(self, network: nn.Module, subject: Subject) -> None:
        network.zero_grad()
        images = subject.context(N_SCORING).calibration
        inputs = subject.roles.normalise(images.inputs.to(subject.device))
        nn.functional.cross_entropy(network(inputs), images.targets.to(subject.device)).backward()


PEERS: Mapping[str, PeerPruner] = {
    f"{PEER}, magnitude, each layer alike": PeerPruner(
        torch_pruning.importance.GroupMagnitudeImportance, is_global=False
    ),
    f"{PEER}, magnitude, global": PeerPruner(torch_pruning.importance.GroupMagnitudeImportance),
    f"{PEER}, LAMP, global": PeerPruner(torch_pruning.importance.LAMPImportance),
    f"{PEER}, Taylor, global": PeerPruner(
        torch_pruning.importance.GroupTaylorImportance, needs_gradients=True
    ),
}


@dataclass(frozen=True)
class Cut:
    """A network that one side has cut.

    Attributes:
        network: As it is after the cut.
        architecture: Its widths.
        seconds: What led there, from the dense network on.
        kept: The channels, where this side says them.
    """

    network: nn.Module
    architecture: Architecture
    seconds: float
    kept: Mapping[str, Any] = field(default_factory=dict)


class Course:
    """What all sides have to cut.

    Args:
        subject: The network and its data.
        shares: Of the dense network's MACs, falling: what each side has to come down to.
    """

    def __init__(self, subject: Subject, shares: Sequence[float]) -> None:
        self.subject, self.shares = subject, shares
        self.widths = Widths(subject)

    def cut_by(self, peer: PeerPruner) -> Iterator[Cut]:
        """Yield what a pruner of the peer has when it comes to each share."""
        left, seconds = list(self.shares), 0.0
        walk = peer.walk(self.subject)
        while left:
            began = time.perf_counter()
            network, architecture = next(walk)
            seconds += time.perf_counter() - began
            while left and self.widths.share_of(architecture) <= left[0]:
                yield Cut(copy.deepcopy(network), architecture, seconds)
                left.pop(0)

    def cut_evenly(self) -> Iterator[Cut]:
        """Yield networks with the same share of every layer, the largest magnitudes."""
        for share in self.shares:
            yield self._select("magnitude", self.widths.evenly(share))

    def cut_along_path(self) -> Iterator[Cut]:
        """Yield what one path of greedy elimination over all groups comes by."""
        began = time.perf_counter()
        path = compute_path(self.subject.context(N_SCORING))
        seconds = time.perf_counter() - began
        for share in self.shares:
            budget = share * path.full_cost
            kept = path.kept_within(budget)
            yield Cut(self.subject.cut(kept), path.architecture_within(budget), seconds, kept)

    def cut_by_curves(self, method: str) -> Iterator[Cut]:
        """Yield the widths that lose least by curves of sensitivity, as a study's warm starts are found."""
        began = time.perf_counter()
        ranges = {name: range(max(1, n // 10), n + 1) for name, n in self.widths.full.items()}
        few = {
            name: [int(width) for width in np.linspace(all_[0], all_[-1], N_WIDTHS).round()]
            for name, all_ in ranges.items()
        }
        context = self.subject.context(N_SCORING)
        curves = measure_curves(Cuts(context, create("magnitude"), n_images=N_SCORING), few)
        finer = {name: curve.at(list(ranges[name])) for name, curve in curves.items()}
        found = allocate(self.widths.cost, "macs", finer)
        seconds = time.perf_counter() - began
        for share in self.shares:
            within = [one for one in found if self.widths.share_of(one.architecture) <= share]
            best = min(within, key=lambda one: one.loss)
            yield self._select(method, best.architecture, seconds)

    def _select(self, method: str, architecture: Architecture, seconds: float = 0.0) -> Cut:
        selection = select_channels(create(method), self.subject.context(N_SCORING), architecture)
        seconds += selection.wall_time_s
        return Cut(self.subject.cut(selection.kept), architecture, seconds, selection.kept)


def list_sides(course: Course) -> dict[str, Callable[[], Iterator[Cut]]]:
    """Return what each side does, by its name."""
    return {
        "dirprune, magnitude, each layer alike": course.cut_evenly,
        "dirprune, curves, magnitude": partial(course.cut_by_curves, "magnitude"),
        "dirprune, curves, greedy": partial(course.cut_by_curves, "greedy"),
        "dirprune, greedy-path": course.cut_along_path,
        **{name: partial(course.cut_by, peer) for name, peer in PEERS.items()},
    }


@click.command("torch-pruning")
@click.option("--subjects", default="resnet20", show_default=True, help="resnet20, resnet56.")
@click.option("--targets", default="0.7,0.5,0.35", show_default=True, help="Shares of the dense MACs.")
@click.option("--sides", default="", help="Only sides whose names begin so.")
@click.option("--train-images", default=20_000, show_default=True, help="Of fine-tuning; 0 for none.")
@click.option("--seeds", default=2, show_default=True, help="Of fine-tuning.")
@click.pass_obj
def torch_pruning_peer(
    setting: Setting, subjects: str, targets: str, sides: str, train_images: int, seeds: int
) -> None:
    """Test accuracy of one-shot pruning at equal MACs, beside Torch-Pruning's own pruners."""
    rows = setting.rows("torch-pruning")
    shares = [float(text) for text in targets.split(",")][: 1 if setting.is_quick else None]
    for kind in subjects.split(","):
        course = Course(load_cifar_subject(kind, setting), shares)
        for side, walk in list_sides(course).items():
            keys: list[dict[str, Any]] = [
                {"subject": kind, "side": side, "target": share, "train_images": train_images, "seeds": seeds}
                for share in shares
            ]
            if not side.startswith(sides) or all(rows.is_done(**key) for key in keys):
                continue
            for key, cut in zip(keys, walk(), strict=True):
                if not rows.is_done(**key):
                    rows.add(key, _measure(course, cut, train_images, seeds))
        click.echo(_format(rows, kind))


def _measure(course: Course, cut: Cut, train_images: int, seeds: int) -> dict[str, Any]:
    """Judge a network as cut, repaired, and fine-tuned."""
    subject = course.subject
    found: dict[str, Any] = {
        "macs": course.widths.share_of(cut.architecture),
        "seconds": cut.seconds,
        "architecture": str(cut.architecture),
        "before": subject.measure_test_accuracy(cut.network),
        "dense": subject.measure_test_accuracy(subject.network),
    }
    recalibrated = copy.deepcopy(cut.network)
    subject.recalibrate_(recalibrated)
    found["recalibrated"] = subject.measure_test_accuracy(recalibrated)
    if cut.kept:
        reconstruct_(cut.network, subject.context(N_IMAGES), cut.kept)
        found["reconstructed"] = subject.measure_test_accuracy(cut.network)
    recipe = dataclasses.replace(CIFAR_FINE_TUNING, images=train_images)
    found["fine_tuned"] = []
    for seed in range(seeds if train_images else 0):
        network = copy.deepcopy(recalibrated)
        for _ in train_(
            network,
            subject.roles,
            make_task(),
            recipe,
            seed=seed,
            device=subject.device,
            teacher=subject.network,
        ):
            pass
        found["fine_tuned"].append(subject.measure_test_accuracy(network))
    return found


def _format(rows: Rows, kind: str) -> str:
    """Return the table of a network, sorted by target and by what fine-tuning ends with."""

    def order(row: dict[str, Any]) -> tuple[float, float]:
        return -row["target"], statistics.fmean(row["fine_tuned"] or [row["recalibrated"]])

    found = sorted(rows.select(subject=kind), key=order)
    header = ["target", "side", "MACs", "as cut", "recalibrated", "reconstructed", "fine-tuned", "cut in s"]
    return format_table(
        header,
        [
            [
                f"{row['target']:.0%}",
                row["side"],
                f"{row['macs']:.1%}",
                f"{row['before']:.1%}",
                f"{row['recalibrated']:.1%}",
                f"{row['reconstructed']:.1%}" if "reconstructed" in row else "",
                format_mean(row["fine_tuned"], 2, 100),
                f"{row['seconds']:.1f}",
            ]
            for row in found
        ],
    )
