"""What of a network can be cut, what a study of it can reach, and how long a step takes here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.cli.own_network import find_with_classes
from dirprune.cli.printing import format_count, format_table
from dirprune.cli.subjects import choose_device, look_for_groups
from dirprune.cost import CostModel, count_costs
from dirprune.data import DataRoles, Place, load_data
from dirprune.data.roles import FOREIGN_SPLIT
from dirprune.data.sources import FOLDERS
from dirprune.errors import ConfigurationError, one_line
from dirprune.evaluation import check_fit, evaluate
from dirprune.groups import ChannelGroup, Grouping
from dirprune.layers import is_refused_alone, output_tensors
from dirprune.networks import create_network, is_of_a_library, load_weights_, with_classes
from dirprune.optimizers import SGD
from dirprune.study.latency import threads_set_to
from dirprune.study.space import SearchSpace
from dirprune.tasks import make_task
from dirprune.uncounted import warn_of_uncounted

USUAL_SHAPE = (3, 32, 32)
SHAPE_OF_LENET = (1, 28, 28)
SHAPE_OF_LIBRARIES = (3, 224, 224)
N_STEPS = 5
N_LISTED = 3
MAX_NAMES = 60


def doctor(
    network: str,
    weights: Path | None,
    data: Place | None,
    dataset: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
    min_keep_ratio: float,
    channel_multiple: int,
    batch_size: int,
    threads: int,
    device: str | None,
) -> None:
    """Print what a study of the network can and cannot do."""
    device = choose_device(device)  # raises before anything is loaded
    space = SearchSpace(
        min_keep_ratio=min_keep_ratio, channel_multiple=channel_multiple, uniform_keep_ratios=()
    )
    found, options = find_with_classes(network, classes)
    if data is not None and dataset is None:
        dataset = FOLDERS
    roles = None if dataset is None else load_data(dataset, data, validation_from=FOREIGN_SPLIT)
    shape = input_shape or (roles.input_shape if roles else _guess_shape(network))
    dense = create_network(found, with_classes(found, options, roles.n_classes if roles else None)).eval()
    if weights is not None:
        load_weights_(dense, weights)
    example = torch.zeros(2, *shape)
    began = time.perf_counter()
    grouping = look_for_groups(dense, example)
    seconds = time.perf_counter() - began
    click.echo(f"network: {network}, inputs of {' x '.join(map(str, shape))}, {_count(dense, example)}")
    if warning := warn_of_uncounted(dense, example):
        click.echo(warning)
    if weights is not None:
        click.echo(f"weights: {weights} fit" + (f"; {_judge(dense, roles, device)}" if roles else ""))
    click.echo(
        f"channel groups: {len(grouping.groups)} can be cut, {len(grouping.refused)} cannot "
        f"(looked for {seconds:.1f} s)\n"
    )
    if grouping.groups:
        click.echo(_format_groups(grouping))
    for name, reason in grouping.refused.items():
        click.echo(f"{name} is left whole: {reason}")
    grouping.check_any()
    click.echo("\n" + _describe_range(dense, grouping, example, space))
    with threads_set_to(threads):
        click.echo(_describe_steps(dense, shape, batch_size, device, threads))


def _guess_shape(network: str) -> tuple[int, ...]:
    if network == "lenet5":
        return SHAPE_OF_LENET
    return SHAPE_OF_LIBRARIES if is_of_a_library(network) else USUAL_SHAPE


def _count(network: nn.Module, example: Tensor) -> str:
    costs = count_costs(network, example)
    return f"{costs.macs:,} MACs, {costs.parameters:,} parameters"


def _judge(network: nn.Module, roles: DataRoles, device: str) -> str:
    """Return the accuracy on the half of the held-out part that a study would take for validation."""
    check_fit(network, roles, task := make_task())
    accuracy = evaluate(network.to(device), roles.validation, roles, task, device)["val_accuracy"]
    network.cpu()
    return f"accuracy {accuracy:.4f} on {len(roles.validation):,} held-out images of {roles.name}"


def _format_groups(grouping: Grouping) -> str:
    rows = [_row(group) for group in grouping.groups]
    widths = [max(len(row[place]) for row in rows) for place in (2, 3)]
    left = [(*row[:2], row[2].ljust(widths[0]), row[3].ljust(widths[1])) for row in rows]
    return format_table(("group", "channels", "cuts".ljust(widths[0]), "enters".ljust(widths[1])), left)


def _row(group: ChannelGroup) -> tuple[str, ...]:
    parts = (group.producers, group.consumers)
    return (group.name, str(group.n_channels), *(_list([slot.module for slot in slots]) for slots in parts))


def _list(names: list[str]) -> str:
    """Return the first names, as far as a line has room."""
    shown = ", ".join(names[:N_LISTED])
    if len(shown) > MAX_NAMES:
        shown = f"{shown[: MAX_NAMES - 3]}..."
    return shown + (f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else "")


def _describe_range(network: nn.Module, grouping: Grouping, example: Tensor, space: SearchSpace) -> str:
    costs = CostModel(network, grouping, example)
    whole = costs.costs(grouping.n_channels)
    least = costs.costs(space.lowest_widths(costs))
    single = costs.costs(dict.fromkeys(grouping.names, 1))
    multiples = f" in multiples of {space.channel_multiple}" if space.channel_multiple > 1 else ""
    lines = [
        f"{100 * (1 - single.macs / whole.macs):.1f}% of the MACs can be cut",
        f"a study that keeps {space.min_keep_ratio:g} of each group or more{multiples} reaches",
        f"  {_span(least.macs, whole.macs)} MACs",
        f"  {_span(least.parameters, whole.parameters)} parameters",
    ]
    return "\n".join(lines)


def _span(least: int, whole: int) -> str:
    return f"{least:,} to {whole:,} ({100 * least / whole:.1f} to 100%)"


def _describe_steps(
    network: nn.Module, shape: tuple[int, ...], batch_size: int, device: str, threads: int
) -> str:
    """Return how long an evaluation and a training step take that are as plain as can be.

    What a study's steps have beside that depends on its recipe and its data.
    """
    network = network.to(device)
    inputs = torch.randn(batch_size, *shape, device=device)

    def evaluate_once() -> None:
        with torch.no_grad():
            network(inputs)

    evaluating = _time(evaluate_once, device)
    training = _time_training(network, inputs, device)
    said = (
        f"a plain step on {batch_size} inputs ({_name_device(device, threads)}): "
        f"evaluation {format_ms(evaluating)} ms ({batch_size / evaluating:,.0f} a second), "
    )
    if training is None:
        return (
            f"{said}no training step: no floating output of the network requires gradients; "
            "a study trains, try requires_grad_(True) if its parameters are frozen"
        )
    return (
        f"{said}training {format_ms(training)} ms ({batch_size / training:,.0f} a second)\n"
        "plain: float32, SGD, a squared error; a study's recipe may add a teacher's pass and augmentation, "
        "and have other batches, bfloat16 or channels last"
    )


def _time_training(network: nn.Module, inputs: Tensor, device: str) -> float | None:
    """Return the seconds of a training step; None: no output of the network has a gradient."""
    optimizer = SGD(network.parameters(), lr=0.0)

    def train_once() -> None:
        outputs = _find_trained(network(inputs))[0]
        loss = F.mse_loss(outputs, torch.zeros_like(outputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    network.train()
    try:
        return _time(train_once, device) if _find_trained(network(inputs)) else None
    except ValueError as error:
        if not is_refused_alone(error):
            raise
        raise ConfigurationError(
            f"expected inputs enough for batch norm to train, got {len(inputs)} ({one_line(error)}); "
            f"try --batch-size {2 * len(inputs)}, or a larger --input-shape"
        ) from error
    finally:
        network.eval()


def _find_trained(outputs: Any) -> list[Tensor]:
    """Return the outputs of a network that a squared error can train."""
    return [one for one in output_tensors(outputs) if one.is_floating_point() and one.requires_grad]


def _name_device(device: str, threads: int) -> str:
    kind = torch.device(device).type
    if kind == "cpu":
        return f"CPU, {format_count(threads, 'thread')}"
    return torch.cuda.get_device_name(device) if kind == "cuda" else device


def format_ms(seconds: float) -> str:
    """Return milliseconds with three significant digits, or whole ones where these are more."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(step: Callable[[], None], device: str) -> float:
    """Return the median of a few steps in seconds, after one that does not count."""
    kind = torch.device(device).type
    seconds = []
    for _ in range(N_STEPS + 1):
        began = time.perf_counter()
        step()
        if kind == "cuda":
            torch.cuda.synchronize(device)
        elif kind == "mps":
            torch.mps.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
