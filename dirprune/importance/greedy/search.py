"""Which of two ways greedy methods go: every candidate judged by the network, or by its curvature."""

from __future__ import annotations

from dirprune.cost import CostModel
from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import ScoringContext

SEARCHES = ("auto", "exact", "curvature")
MOST_WORK = 2e14
"""Multiply-adds up to which "auto" is exact. With 1,000 images LeNet-5 has 6e12 of them, the same with twice
its channels 9e13, which takes seconds, and ResNet-20 7e14."""


def check_search(search: str, value: str) -> None:
    """Check the option.

    Raises:
        ImportanceError: If it is unknown, or by curvature where accuracy, which has none, is the value.
    """
    if search not in SEARCHES:
        raise ImportanceError(
            f"search must be 'auto', 'exact' or 'curvature', got {search!r}{suggest(search, SEARCHES)}"
        )
    if search == "curvature" and value != "loss":
        raise ImportanceError(f"search 'curvature' needs value 'loss', got {value!r}; try search=exact")


def is_exact(context: ScoringContext, search: str, value: str) -> bool:
    """Return whether every candidate is judged by the network.

    By default as long as one pass over the images for each pair of channels of each group, were the whole
    network run, takes no more than `MOST_WORK` multiply-adds: a rule without a clock, so that the same
    network is treated in the same way everywhere. Accuracy has no curvature: it is always exact.
    """
    if search != "auto" or value != "loss":
        return search != "curvature"
    grouping = context.grouping
    n_pairs = sum(group.n_channels**2 for group in grouping.groups)
    model = CostModel(context.network, grouping, context.load(slice(0, 2))[0])
    return n_pairs * len(context.calibration) * model.costs(grouping.n_channels).macs <= MOST_WORK
