"""Fine-tuning compact networks against masked dense ones, in images a second, in turns.

    python benchmarks/throughput.py --output FILE
    python benchmarks/throughput.py --networks vgg16 --keep-ratios 0.25 --output FILE
    python benchmarks/throughput.py --device cuda --precision bfloat16 --output FILE    (as studies do)

The masked side is how Dirichlet pruning's own code holds pruned channels: the dense network, hooks that zero
the gradients of what was pruned, and its weights zeroed again after each step. Both sides take the same
steps (SGD with momentum, channels innermost in memory) on the same noise. Each row is appended as it
is measured; the table of all rows is printed at the end.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.device import exact_products
from dirprune.groups import Grouping
from dirprune.networks import create_network
from dirprune.surgery import compact
from dirprune.tracing import find_groups

SHAPES = {"lenet5": (1, 28, 28)}
SHAPE = (3, 32, 32)
N_CLASSES = 10
LEAST_S = 1.0  # of each side in each repetition
N_FIRST_ON_GPU = 20  # steps that warm up, and as many that tell how long one takes
PRECISIONS = ("float32", "bfloat16")

Step = Callable[[], None]


def mask_(
    network: nn.Module, grouping: Grouping, kept: dict[str, list[int]]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Zero what was pruned, let its gradients be zeroed, and return every such parameter with its mask."""
    masked = []
    for group in grouping.groups:
        for slot in group.producers:
            is_kept = torch.tensor(
                [channel < 0 or channel in set(kept[group.name]) for channel in slot.channel_of]
            )
            module = network.get_submodule(slot.module)
            for parameter in module.parameters(recurse=False):
                mask = is_kept.to(parameter).reshape(-1, *[1] * (parameter.ndim - 1))
                parameter.data.mul_(mask)
                parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
                masked.append((parameter, mask))
    return masked


def make_step(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    masked: list[tuple[nn.Parameter, Tensor]],
    precision: str = "float32",
) -> Step:
    """Return one step of fine-tuning."""
    network.train().to(memory_format=torch.channels_last)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(network(inputs), targets)
        loss.backward()
        optimizer.step()
        for parameter, mask in masked:
            parameter.data.mul_(mask)

    return step


def measure(step: Step, n_steps: int, device: str) -> float:
    """Return the seconds of so many steps."""
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(n_steps):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def compare(
    name: str, keep_ratio: float, batch_size: int, precision: str, repetitions: int, device: str
) -> dict:
    """Measure both sides in turns."""
    torch.manual_seed(0)
    shape = SHAPES.get(name, SHAPE)
    dense = create_network(name, {}, seed=0).eval()
    example = torch.rand(2, *shape)
    grouping = find_groups(dense, example)
    architecture = Architecture.uniform(grouping, keep_ratio)
    kept = {group: list(range(n)) for group, n in architecture.items()}
    costs = CostModel(dense, grouping, example)
    inputs = torch.randn(batch_size, *shape, device=device)
    targets = torch.randint(0, N_CLASSES, (batch_size,), device=device)
    small = compact(dense, grouping, kept, example).to(device)
    compact_step = make_step(small, inputs, targets, [], precision)
    dense.to(device)
    masked_step = make_step(dense, inputs, targets, mask_(dense, grouping, kept), precision)
    n_first = 1 if device == "cpu" else N_FIRST_ON_GPU
    first = []
    for step in (compact_step, masked_step):
        measure(step, n_first, device)
        first.append(measure(step, n_first, device) / n_first)
    n_steps = [max(1, round(LEAST_S / seconds)) for seconds in first]
    rates = []
    for _ in range(repetitions):
        pair = [
            batch_size * n / measure(step, n, device)
            for n, step in zip(n_steps, (compact_step, masked_step), strict=True)
        ]
        rates.append(pair)
    return {
        "network": name,
        "keep_ratio": keep_ratio,
        "macs_kept": costs.costs(architecture).macs / costs.costs(grouping.n_channels).macs,
        "batch_size": batch_size,
        "precision": precision,
        "device": name_device(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rates": rates,
    }


def name_device(device: str) -> str:
    """Return what rows call a device."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def tabulate(rows: list[dict]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| network | keep ratio | MACs kept | masked dense, images/s | compact, images/s | ratio | on |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fast, slow = (statistics.median(pair[side] for pair in row["rates"]) for side in (0, 1))
        ratios = sorted(pair[0] / pair[1] for pair in row["rates"])
        lines.append(
            f"| {row['network']} | {row['keep_ratio']:g} | {100 * row['macs_kept']:.1f}% | {slow:,.0f} | "
            f"{fast:,.0f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | "
            f"{row['device']}, {row.get('precision', 'float32')}, batches of {row['batch_size']} |"
        )
    return "\n".join(lines)


@click.command(context_settings={"show_default": True})
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File of rows."
)
@click.option("--networks", default="lenet5,resnet56,vgg16")
@click.option("--keep-ratios", default="0.5,0.25")
@click.option("--batch-size", default=128)
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", help="bfloat16: autocast.")
@click.option("--repetitions", default=5)
@click.option("--device", default="cpu")
@click.option("--threads", default=1, help="Of torch on the CPU.")
def main(
    output: Path,
    networks: str,
    keep_ratios: str,
    batch_size: int,
    precision: str,
    repetitions: int,
    device: str,
    threads: int,
) -> None:
    """Measure what is not in the file of rows yet, and print the table."""
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    setting = {"device": name_device(device), "batch_size": batch_size, "precision": precision}
    done = {
        (row["network"], row["keep_ratio"])
        for row in rows
        if {"device": "cpu", "precision": "float32", **row}.items() >= setting.items()
    }
    for name in networks.split(","):
        for keep_ratio in map(float, keep_ratios.split(",")):
            if (name, keep_ratio) in done:
                continue
            with exact_products(device):
                rows.append(compare(name, keep_ratio, batch_size, precision, repetitions, device))
            with output.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            click.echo(tabulate(rows[-1:]).splitlines()[-1], err=True)
    click.echo(tabulate(rows))


if __name__ == "__main__":
    main()
