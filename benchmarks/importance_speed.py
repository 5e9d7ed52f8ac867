"""How fast coalitions are evaluated, how far from the bound, and what every method takes in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import numpy as np
import torch
from importance_common import (
    CIFAR_NETWORKS,
    Rows,
    Setting,
    Subject,
    load_cifar_subject,
    load_lenets,
    measure_alternating,
    measure_seconds,
)
from importance_methods import Variant, find_variants

from dirprune.architecture import Architecture
from dirprune.device import exact_products
from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext, get_method
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.layers import copy_for_evaluation, record_layers
from dirprune.networks import create_network
from dirprune.tracing import find_groups

SECONDS_OF_FAST_SIDE = {"cpu": 3.0, "cuda": 1.0}  # nobody else is on a GPU
N_SLOW = {"cpu": 4, "cuda": 32}  # coalitions that the slow side evaluates in a repetition
SIZES = {"cpu": 2048, "cuda": 4096}  # of the matrices that tell what the device reaches
N_FIRST = 32  # coalitions that tell how fast the fast side is, and the least that it evaluates
PLACES = {  # groups by their places in forward order; None: every group
    "lenet5": None,
    "resnet20": (0, 4, 8),
    "resnet56": (0, 13, 26),
    "vgg16": (1, 6, 12),
}
N_IMAGES_OF_RESNETS = 200  # and a single repetition, where the seconds of methods are measured
N_IMAGES = {"lenet5": 5000, "resnet20": 500, "resnet56": 200, "vgg16": 64}


@dataclass(frozen=True)
class Rates:
    """What the device reaches alone.

    Attributes:
        multiply_adds_per_s: In products of float32 matrices.
        bytes_per_s: Read and written, in copies.
    """

    multiply_adds_per_s: float
    bytes_per_s: float


def measure_rates(device: str, size: int) -> Rates:
    """Measure the best of five products of square matrices, and of five copies of 64 * size ** 2 bytes."""
    n_copied = 16 * size**2
    left, right = (torch.rand(size, size, device=device) for _ in range(2))
    source = torch.rand(n_copied, device=device)
    target = torch.empty_like(source)
    with exact_products(device):
        products = measure_alternating({"product": lambda: left @ right}, 6)["product"][1:]
    copies = measure_alternating({"copy": lambda: target.copy_(source)}, 6)["copy"][1:]
    return Rates(size**3 / min(products), 2 * 4 * n_copied / min(copies))


@dataclass(frozen=True)
class Work:
    """The least work for one coalition on one image: multiply-adds, and bytes through memory."""

    multiply_adds: int
    n_bytes: int


def count_work(subject: Subject, group: str, is_linear_to_the_end: bool) -> Work:
    """Count what the roofline bound counts for one coalition on one image.

    The model: contributions are given. A coalition costs one matrix product with them,
    (n_channels + 1) * (outputs of the group's consumer, before max-pooling) multiply-adds, and then the
    multiply-adds of every layer behind the consumer. Every output of the consumer and of the layers behind it
    is written once and read once, 8 bytes in float32; batch norm, activations, pooling and the loss are free.
    Where the rest of the network is linear, the contributions are to its outputs:
    (n_channels + 1) * n_classes multiply-adds, and the outputs alone are written and read.

    The bound in seconds is multiply-adds over the measured matrix rate plus bytes over the measured
    bandwidth; results that stay in a cache can beat its second part.
    """
    n_rows = subject.grouping[group].n_channels + 1
    network = copy_for_evaluation(subject.network)
    example = subject.roles.example_input(1)
    if is_linear_to_the_end:
        n_outputs = network(example).shape[1]
        return Work(n_rows * n_outputs, 8 * n_outputs)
    calls = record_layers(network, example)
    consumer = subject.grouping[group].consumers[0].module
    place = [call.path for call in calls].index(consumer)
    weights = [network.get_submodule(call.path).weight for call in calls]
    n_outputs = [
        call.n_positions * weight.shape[0]
        for call, weight in zip(calls, weights, strict=True)  # one image
    ]
    behind = sum(
        call.n_positions * weight.numel()
        for call, weight in zip(calls[place + 1 :], weights[place + 1 :], strict=True)
    )
    return Work(n_rows * n_outputs[place] + behind, 8 * sum(n_outputs[place:]))


def compare_coalitions(
    subject: Subject, group: str, n_images: int, rates: Rates, n_repetitions: int, n_fast: int | None
) -> dict[str, Any]:
    """Evaluate the same coalitions by masking and by the engine, in turns, and compare what they say.

    The first evaluation of the engine computes the contributions and is reported by itself: it is paid once.
    """
    context = subject.context(n_images)
    slow = MaskedValues(context, group)
    fast = open_values(context, group, is_stored=False)
    rng = np.random.default_rng(0)
    first = rng.random((N_FIRST, fast.n_channels)) < 0.5
    preparing_s = measure_seconds(lambda: fast.evaluate(first))
    rate = len(first) / measure_seconds(lambda: fast.evaluate(first))
    kind = "cpu" if subject.device == "cpu" else "cuda"
    n_coalitions = n_fast or int(np.clip(rate * SECONDS_OF_FAST_SIDE[kind], N_FIRST, 100_000))
    coalitions = rng.random((n_coalitions, fast.n_channels)) < 0.5
    n_slow = N_SLOW[kind]
    slow.evaluate(first[:1])  # a GPU's first pass with a new batch size looks for its kernels
    found: dict[str, np.ndarray] = {}
    sides = {
        "masked": lambda: found.update(masked=slow.evaluate(coalitions[:n_slow])),
        "engine": lambda: found.update(engine=fast.evaluate(coalitions)),
    }
    seconds = measure_alternating(sides, n_repetitions)
    masked_ms = [1e3 * value / n_slow for value in seconds["masked"]]
    engine_ms = [1e3 * value / n_coalitions for value in seconds["engine"]]
    work = count_work(subject, group, getattr(fast, "is_linear_to_the_end", False))
    bound_s = work.multiply_adds / rates.multiply_adds_per_s + work.n_bytes / rates.bytes_per_s
    return {
        "n_channels": fast.n_channels,
        "n_coalitions": n_coalitions,
        "masked_ms": masked_ms,
        "engine_ms": engine_ms,
        "ratio": [slow_ms / fast_ms for slow_ms, fast_ms in zip(masked_ms, engine_ms, strict=True)],
        "bound_ms": 1e3 * bound_s * len(context.calibration),
        "preparing_s": preparing_s,
        "largest_difference": float(np.abs(found["masked"] - found["engine"][:n_slow]).max()),
        "predictions_that_differ": count_other_predictions(context, slow, fast, coalitions[:n_slow]),
        "engine": fast.describe(),
        "multiply_adds_per_s": rates.multiply_adds_per_s,
        "bytes_per_s": rates.bytes_per_s,
    }


def count_other_predictions(
    context: ScoringContext, slow: CoalitionValues, fast: CoalitionValues, coalitions: np.ndarray
) -> int:
    """Count the images, over all coalitions, that the two sides put into different classes."""
    n_other = 0
    chosen = torch.from_numpy(coalitions)
    for inputs, _ in context.batches(100):
        one, other = (side.compute_outputs(inputs, chosen).argmax(2) for side in (slow, fast))  # type: ignore[attr-defined]
        n_other += int((one != other).sum())
    return n_other


def load_speed_subjects(setting: Setting) -> list[Subject]:
    """Return one LeNet-5 and the networks for CIFAR."""
    names = CIFAR_NETWORKS[:1] if setting.is_quick else CIFAR_NETWORKS
    return [load_lenets(setting)[0], *(load_cifar_subject(name, setting) for name in names)]


@click.command
@click.option("--repetitions", default=5)
@click.pass_obj
def coalitions(setting: Setting, repetitions: int) -> None:
    """Coalitions per second: the engine against masking the whole network, beside a roofline bound."""
    rows = setting.rows("coalitions")
    size = SIZES["cpu" if setting.device == "cpu" else "cuda"]
    rates = measure_rates(setting.device, 512 if setting.is_quick else size)
    for subject in load_speed_subjects(setting):
        kind = subject.name.partition("-")[0]
        n_images = 100 if setting.is_quick else N_IMAGES[kind]
        names = subject.grouping.names
        places = PLACES[kind] or range(len(names))
        for group in [names[place] for place in places][: 2 if setting.is_quick else None]:
            key = {"subject": kind, "group": group, "n_images": n_images, "device": setting.device}
            if rows.is_done(**key):
                continue
            n_fast = 64 if setting.is_quick else None
            measured = compare_coalitions(
                subject, group, n_images, rates, 1 if setting.is_quick else repetitions, n_fast
            )
            rows.add(key, measured)
            click.echo(f"{kind} {group}: {np.median(measured['ratio']):.1f}x")


def scale_lenet(subject: Subject, factor: int) -> Subject:
    """Return an untrained LeNet-5 of so many times the channels, on the same data."""
    widths = tuple(factor * group.n_channels for group in subject.grouping.groups)
    network = create_network("lenet5", {"widths": widths}, seed=0).eval()
    grouping = find_groups(network, subject.roles.example_input())
    return dataclasses.replace(
        subject, network=network.to(subject.device), grouping=grouping, is_trained=False
    )


@click.command
@click.option("--repetitions", default=3)
@click.option("--methods", help="Labels or names, separated by semicolons; all by default.")
@click.option("--images", default=1000)
@click.option("--networks", default="resnet20", help="Networks for CIFAR beside LeNet-5: resnet20, resnet56.")
@click.pass_obj
def seconds(setting: Setting, repetitions: int, methods: str | None, images: int, networks: str) -> None:
    """Seconds per network of every method, and how they grow with channels, evaluations and images."""
    rows = setting.rows("seconds")
    quick = setting.is_quick
    images, repetitions = (100, 1) if quick else (images, repetitions)
    variants = find_variants("random;fisher;shapley;greedy" if quick else methods)
    lenet = load_lenets(setting)[0]
    _time(rows, variants, lenet, "network", "lenet5", images, repetitions)
    for name in () if quick or not networks else networks.split(","):
        _time(rows, variants, load_cifar_subject(name, setting), "network", name, N_IMAGES_OF_RESNETS, 1)
    for factor in (1, 2) if quick else (1, 2, 4):
        _time(rows, variants, scale_lenet(lenet, factor), "channels", factor, images, repetitions)
    for n_images in (50, 100) if quick else (500, 1000, 2000, 4000):
        _time(rows, variants, lenet, "images", n_images, n_images, repetitions)
    for n_evaluations in (102,) if quick else (250, 500, 1000, 2000):
        more = [
            dataclasses.replace(variant, options={**variant.options, "evaluations": n_evaluations})
            for variant in variants
            if "evaluations" in get_method(variant.method).options
        ]
        _time(rows, more, lenet, "evaluations", n_evaluations, images, repetitions)


def _time(
    rows: Rows,
    variants: Sequence[Variant],
    subject: Subject,
    axis: str,
    place: float | str,
    n_images: int,
    n_repetitions: int,
) -> None:
    """Time every variant several times; half of every group is kept, and nothing comes from a cache."""
    context = subject.context(n_images)
    architecture = Architecture.uniform(subject.grouping, 0.5)
    for variant in variants:
        label = variant.label
        key = {"axis": axis, "place": place, "n_images": n_images, "variant": label, "device": subject.device}
        if rows.is_done(**key):
            continue
        run = partial(variant.select, context, architecture)
        try:
            measured = [measure_seconds(run) for _ in range(n_repetitions)]
        except ImportanceError as error:
            click.echo(f"left out {label} ({axis} {place}): {error}", err=True)
            continue
        rows.add(key, {"seconds": measured})
        click.echo(f"{axis} {place}, {label}: {min(measured):.2f} s")
