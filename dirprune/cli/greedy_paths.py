"""What lies on a greedy path: networks at evenly spaced costs, each with what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dirprune.cli.printing import format_table
from dirprune.cli.subjects import Subject
from dirprune.cost import CostModel
from dirprune.evaluation import evaluate
from dirprune.groups import Grouping
from dirprune.pruning import prune

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class PathPoint:
    """A network on a path.

    Attributes:
        n_removed: Channels removed so far.
        architecture: Kept channels in forward order, as `--arch` takes them.
        macs: Multiply-accumulates of one input.
        parameters: Weights and biases.
        share: Of what the whole network costs.
        val_accuracy: Right after pruning and batch-norm recalibration, in [0, 1].
    """

    n_removed: int
    architecture: str
    macs: int
    parameters: int
    share: float
    val_accuracy: float


def measure_path(
    subject: Subject, grouping: Grouping, scores: Mapping[str, torch.Tensor], metric: str
) -> list[PathPoint]:
    """Judge the first network of a path within each share of the cost.

    Args:
        subject: The whole network.
        grouping: Its channel groups.
        scores: Of a path: the place in which each channel was removed, shape (n_channels,) for each group.
        metric: What costs: "macs" or "parameters".
    """
    model = CostModel(subject.network, grouping, subject.roles.example_input())
    full = model.costs(grouping.n_channels).as_dict()[metric]
    removals = sorted({int(place) for values in scores.values() for place in values.tolist()})
    points = []
    for share in SHARES:
        for n_removed in removals:
            kept = {
                name: torch.nonzero(values >= n_removed).flatten().tolist() for name, values in scores.items()
            }
            costs = model.costs({name: len(channels) for name, channels in kept.items()})
            share_now = costs.as_dict()[metric] / full
            if share_now <= share:
                break
        else:
            break  # the path ends above this cost
        pruned = prune(
            subject.network, subject.roles, subject.task, kept=kept, device=subject.device, grouping=grouping
        )
        roles, task = subject.roles, subject.task
        judged = evaluate(pruned.network, roles.validation, roles, task, subject.device, prefix="val_")
        text = ",".join(str(n_kept) for n_kept in pruned.architecture.values())
        points.append(
            PathPoint(n_removed, text, costs.macs, costs.parameters, share_now, judged["val_accuracy"])
        )
    return points


def format_path(points: Sequence[PathPoint]) -> str:
    """Return a table of networks on a path; their `--arch` goes into `dirprune prune`."""
    rows = [
        [
            str(point.n_removed),
            f"{point.macs:,}",
            f"{point.parameters:,}",
            f"{100 * point.share:.0f}%",
            f"{point.val_accuracy:.4f}",
            point.architecture,
        ]
        for point in points
    ]
    return format_table(["removed", "MACs", "parameters", "of all", "validation accuracy", "--arch"], rows)
