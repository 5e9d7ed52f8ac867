"""Images a second of fine-tuning beside what the device could do, and where the rest goes.

    python benchmarks/training_limit.py --output FILE
    python benchmarks/training_limit.py --networks resnet56,vgg16 --device cuda --images 50000 --output FILE

The trainings are dirprune's own, by the recipe of its CIFAR studies (SGD, augmentation on the device, most of
the loss from the dense network), on noise. The most that the device could do follows from its fastest matrix
product and from the multiply-accumulates of a step: three times the network's own (forward, and backward to
inputs and to weights [Kaplan et al. 2020, section 2.1]) and once the teacher's. Where the time goes is told
by torch's profiler in some further steps, which it slows down. A GPU replays steps as CUDA graphs and,
alternating with that, is asked for each operation of a step; it is busy for as long as its kernels take in
the profiled steps, of the time that the steps take without the profiler; the rest of the time it waits for
the CPU. Each row is appended as it is measured.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from importance_common import Rows
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from dirprune.cli.printing import format_table
from dirprune.cost import count_costs
from dirprune.data import DataRoles, make_roles
from dirprune.device import exact_products
from dirprune.latency import name_processor
from dirprune.networks import create_network
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR_FINE_TUNING
from dirprune.replay import SWITCH
from dirprune.tasks import make_task
from dirprune.training import train_

SIDES = (512, 1024, 2048, 4096)
SIDES_ON_GPU = (4096, 8192)
"""Sides of the square matrices among whose products the fastest is looked for."""
LEAST_S = 0.5
N_CLASSES = 10
N_WARMING = {"cpu": 2, "cuda": 20}
N_PROFILED = 20
"""Steps before the first training that counts, and under the profiler."""
N_OF_PRUNING = 512
OLDER = {"precision": "float32", "batch_size": CIFAR_FINE_TUNING.batch_size}
"""What rows mean that do not say it."""
PARTS = {
    "batch norm": ("batch_norm", "batchnorm"),  # before cuDNN's other operations
    "convolutions": ("conv", "mkldnn", "cudnn", "mm", "linear", "gemm"),
    "ReLU": ("relu", "threshold", "clamp"),
    "augmentation": ("gather", "pad", "arange", "index", "randint", "rand", "expand"),
    "optimizer": ("optimizer", "foreach", "sgd"),
    "copies": ("copy", "to_copy", "contiguous", "clone"),
}
"""What the names of operations hold, by part; the first that fits counts."""
OTHER = "all else"


def measure_peak(device: str, precision: str = "float32") -> float:
    """Return the multiply-accumulates a second of the fastest matrix product in a precision."""
    fastest = 0.0
    for side in SIDES if device == "cpu" else SIDES_ON_GPU:
        left, right = torch.rand(2, side, side, device=device).to(getattr(torch, precision))
        left @ right
        _wait(device)
        began, n_done = time.perf_counter(), 0
        while time.perf_counter() - began < LEAST_S:
            left @ right
            _wait(device)
            n_done += 1
        fastest = max(fastest, n_done * side**3 / (time.perf_counter() - began))
    return fastest


def measure(name: str, keep_ratio: float, recipe: Recipe, repetitions: int, device: str) -> dict[str, Any]:
    """Train one network some times by a recipe, and some steps under the profiler."""
    roles = make_noise(recipe.images)
    few = make_noise(min(recipe.images, N_OF_PRUNING))  # what batch norm says is of no account
    dense = create_network(name, seed=0).eval()
    network = prune(dense, few, architecture=keep_ratio, method="magnitude").network
    example = roles.example_input()
    macs = 3 * count_costs(network, example).macs + count_costs(dense, example).macs
    n_warming = N_WARMING["cpu" if device == "cpu" else "cuda"]
    train(network, dense, roles, cut_short(recipe, n_warming), device)
    peaks, rates, rates_asked = [], [], []
    for _ in range(repetitions):
        peaks.append(measure_peak(device, recipe.precision))
        with graphs(True):
            rates.append(train(network, dense, roles, recipe, device))
        if device != "cpu":
            with graphs(False):
                rates_asked.append(train(network, dense, roles, recipe, device))
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiled = cut_short(recipe, N_PROFILED)
    with graphs(False), torch.profiler.profile(activities=activities) as profile:
        train(network, dense, roles, profiled, device)
    events = profile.key_averages()
    of_gpu: dict[str, Any] = {}
    if device != "cpu":
        of_gpu = {"rates_asked": rates_asked, "kernel_s": 1e-6 * sum_kernels(events) / profiled.images}
    return {
        "macs_of_a_step": macs,
        "peaks": peaks,
        "rates": rates,
        "shares": find_shares(sum_times(events, device)),
        **of_gpu,
        "threads": torch.get_num_threads(),
        "processor": name_processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
    }


@contextmanager
def graphs(is_on: bool) -> Iterator[None]:
    """Let trainings replay steps as CUDA graphs, or ask a GPU for each operation of each step."""
    was = os.environ.get(SWITCH)
    os.environ[SWITCH] = str(int(is_on))
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        if was is not None:
            os.environ[SWITCH] = was


def train(network: nn.Module, teacher: nn.Module, roles: DataRoles, recipe: Recipe, device: str) -> float:
    """Return the images a second of one training."""
    *_, last = train_(network, roles, make_task(), recipe, seed=0, device=device, teacher=teacher)
    return last.metrics["images_per_s"]


def cut_short(recipe: Recipe, n_steps: int) -> Recipe:
    """Return a recipe of so many steps, or of all if there are fewer."""
    return replace(recipe, images=min(recipe.images, n_steps * recipe.batch_size))


def make_noise(n_images: int) -> DataRoles:
    """Return so many training images of noise, and a few others."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n_images + 64, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = torch.arange(n_images + 64) % N_CLASSES
    parts = (images[:n_images], targets[:n_images], images[n_images:], targets[n_images:])
    return make_roles("noise", *parts, validation_from="test:0.5", seed=0, n_classes=N_CLASSES)


def sum_times(events: Iterable[FunctionEventAvg], device: str) -> dict[str, float]:
    """Return the time of each operation on the device, without that of operations inside it, in microseconds.

    A profile of a GPU lists its kernels as well; their time is in that of the operations that started them.
    """
    return {
        event.key: event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        for event in events
        if event.device_type == DeviceType.CPU
    }


def sum_kernels(events: Iterable[FunctionEventAvg]) -> float:
    """Return the time of all kernels and copies on a GPU, in microseconds; named spans are none."""
    return sum(
        event.self_device_time_total
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )


def find_shares(times: Mapping[str, float]) -> dict[str, float]:
    """Return the share of the time that each part takes, by the times of operations."""
    summed: Counter[str] = Counter()
    for operation, taken in times.items():
        name = operation.lower()
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), OTHER)
        summed[part] += taken
    total = sum(summed.values())
    return {part: summed[part] / total for part in (*PARTS, OTHER)}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def say_rates(rates: list[float]) -> str:
    """Return the median and the spread."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def tabulate(rows: list[dict[str, Any]]) -> str:
    """Return a table of all rows."""
    lines = []
    for row in rows:
        peak, rate = statistics.median(row["peaks"]), statistics.median(row["rates"])
        limit = peak / row["macs_of_a_step"]
        shares = ", ".join(
            f"{part} {100 * share:.0f}%" for part, share in row["shares"].items() if share >= 0.005
        )
        asked = row.get("rates_asked", [])
        kernel_s = row.get("kernel_s", math.nan)
        lines.append(
            [
                row["network"],
                f"{row['keep_ratio']:g}",
                f"{row['device']}, {row['precision']}",
                f"{row['batch_size']}",
                say_rates(row["rates"]),
                say_rates(asked) if asked else "",
                f"{peak / 1e9:,.1f}",
                f"{limit:,.0f}",
                f"{100 * rate / limit:.0f}%",
                f"{100 * kernel_s * rate:.0f}% ({100 * kernel_s * statistics.median(asked):.0f}%)"
                if asked
                else "",
                shares,
            ]
        )
    titles = [
        "network",
        "keep ratio",
        "on",
        "batch",
        "images/s",
        "without graphs",
        "peak, GMAC/s",
        "limit, images/s",
        "of it",
        "GPU busy (without)",
    ]
    return format_table([*titles, "where the time goes"], lines)


@click.command(context_settings={"show_default": True})
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Rows.")
@click.option("--networks", default="resnet20")
@click.option("--keep-ratios", default="1,0.5,0.25")
@click.option("--images", "n_images", default=2560)
@click.option("--batch-size", default=CIFAR_FINE_TUNING.batch_size)
@click.option("--precision", type=click.Choice(("float32", "bfloat16")), default="float32")
@click.option("--repetitions", default=3)
@click.option("--device", default="cpu")
@click.option("--threads", default=1, help="Of torch on the CPU.")
def main(
    output: Path,
    networks: str,
    keep_ratios: str,
    n_images: int,
    batch_size: int,
    precision: str,
    repetitions: int,
    device: str,
    threads: int,
) -> None:
    """Measure each network at each keep ratio, unless it is in the file already, and print the table."""
    torch.set_num_threads(threads)
    rows = Rows(output, OLDER)
    recipe = replace(CIFAR_FINE_TUNING, images=n_images, batch_size=batch_size, precision=precision)
    for name in networks.split(","):
        for keep_ratio in map(float, keep_ratios.split(",")):
            key = {"network": name, "keep_ratio": keep_ratio, "device": device, "images": n_images}
            key |= {"batch_size": batch_size, "precision": precision}
            if not rows.is_done(**key):
                with exact_products(device) if precision == "float32" else nullcontext():
                    rows.add(key, measure(name, keep_ratio, recipe, repetitions, device))
    click.echo(tabulate(list(rows)))


if __name__ == "__main__":
    main()
