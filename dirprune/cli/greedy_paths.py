"""What lies on a greedy path: networks at evenly spaced costs, each with what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dirprune.cli.printing import format_table
from dirprune.cli.subjects import Subject
from dirprune.cost import CostModel
from dirprune.evaluation import evaluate
from dirprune.groups import Grouping
from dirprune.importance.greedy import Path
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
        cost: By the cost that the path saves: as one of these, or in milliseconds.
        share: Of what the whole network costs.
        val_accuracy: Right after pruning and batch-norm recalibration, in [0, 1].
    """

    n_removed: int
    architecture: str
    macs: int
    parameters: int
    cost: float
    share: float
    val_accuracy: float


def measure_path(subject: Subject, grouping: Grouping, path: Path) -> list[PathPoint]:
    """Judge the first network of a path within each share of the cost.

    Args:
        subject: The whole network.
        grouping: Its channel groups.
        path: All removals, with what they cost.
    """
    lowest = min([path.full_cost, *(step.cost for step in path.steps)])
    budgets = [share * path.full_cost for share in SHARES]
    return [measure_point(subject, grouping, path, budget) for budget in budgets if budget >= lowest]


def measure_point(subject: Subject, grouping: Grouping, path: Path, budget: float) -> PathPoint:
    """Judge the first network of a path within a budget.

    Raises:
        ImportanceError: If no network of the path is.
    """
    n_removed = path.count_steps_within(budget)
    cost = path.steps[n_removed - 1].cost if n_removed > 0 else path.full_cost
    kept, architecture = path.kept_within(budget), path.architecture_within(budget)
    roles, task = subject.roles, subject.task
    pruned = prune(subject.network, roles, task, kept=kept, device=subject.device, grouping=grouping)
    judged = evaluate(pruned.network, roles.validation, roles, task, subject.device, prefix="val_")
    costs = CostModel(subject.network, grouping, roles.example_input()).costs(architecture)
    text = ",".join(str(n_kept) for n_kept in architecture.values())
    share = cost / path.full_cost
    return PathPoint(n_removed, text, costs.macs, costs.parameters, cost, share, judged["val_accuracy"])


def format_path(points: Sequence[PathPoint], is_timed: bool = False) -> str:
    """Return a table of networks on a path; their `--arch` goes into `dirprune prune`.

    Args:
        is_timed: Whether the cost is milliseconds, which are shown then.
    """
    rows = [
        [
            str(point.n_removed),
            f"{point.macs:,}",
            f"{point.parameters:,}",
            *([f"{point.cost:.3g}"] if is_timed else []),
            f"{100 * point.share:.0f}%",
            f"{point.val_accuracy:.4f}",
            point.architecture,
        ]
        for point in points
    ]
    timed = ["ms"] if is_timed else []
    header = ["removed", "MACs", "parameters", *timed, "of all", "validation accuracy", "--arch"]
    return format_table(header, rows)
