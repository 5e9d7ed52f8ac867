"""Greedy elimination over all groups jointly, per unit of cost saved: an architecture for every cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dirprune.cost import COST_METRICS, LATENCY, CostModel
from dirprune.device import exact_products
from dirprune.errors import ImportanceError, suggest
from dirprune.identity import digest
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.cache import context_key, open_lines
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.greedy.elimination import Elimination
from dirprune.importance.greedy.images import check_common, with_examples
from dirprune.importance.greedy.search import check_search, is_exact
from dirprune.importance.greedy.steps import Path
from dirprune.importance.greedy.walk import Cost, Walk, compute_rate
from dirprune.importance.greedy.walk_by_curvature import CurvatureWalk
from dirprune.importance.lines import CheckedLines
from dirprune.importance.registry import register
from dirprune.latency import describe_machine, describe_setting, fit_latency, measure_latency

COSTS = (*COST_METRICS, "latency")
N_FOR_LATENCY = 64
N_EXACT = 500
N_BY_CURVATURE = 2000


@dataclass(frozen=True)
class PathOptions:
    """Options of `GreedyPath`.

    Attributes:
        cost: What is saved by removing a channel: "macs", "parameters", or "latency" as `fit_latency` has it
            for batches of 64 calibration images on the device: other measurements give other paths.
        value: "loss" (the better conditioned one) or "accuracy".
        n_examples: Calibration images that judge; >= 1. All of them where there are fewer. None: 500, or by
            curvature 2,000, of which each look is at about 500 in turn.
        step: Share of a group's channels left that may go at once, in (0, 1]; at least one always may.
        slack: Share by which a channel may cost more than the cheapest one of another group was last known
            to cost, before that group is looked at again; >= 0.
        lazy: Whether channels that cannot be the cheapest are left out.
        recalibrate: Whether channels are judged with the batch-norm statistics that they leave, as when these
            are estimated again after pruning.
        search: "exact" judges every candidate by running the network, "curvature" all of them at once to
            second order, which scales to deep networks (`step` is then a share of all channels that are
            left; `slack` and `lazy` have no meaning); "auto" is exact on small networks.
    """

    cost: str = "macs"
    value: str = "loss"
    n_examples: int | None = None
    step: float = 0.1
    slack: float = 0.2
    lazy: bool = True
    recalibrate: bool = True
    search: str = "auto"

    def __post_init__(self) -> None:
        check_common(self.value, 1 if self.n_examples is None else self.n_examples, self.step)
        check_search(self.search, self.value)
        if self.cost not in COSTS:
            hint = suggest(self.cost, COSTS)
            raise ImportanceError(f"cost must be 'macs', 'parameters' or 'latency', got {self.cost!r}{hint}")
        if not 0 <= self.slack < float("inf"):
            raise ImportanceError(f"slack must be a number of at least 0, got {self.slack:g}")


@register(
    "greedy-path",
    "the place in a joint elimination over all groups, each time of what loses least per unit of cost saved",
    paper="Marill and Green 1963, IEEE Transactions on Information Theory 9 (backward elimination; to weigh "
    "it by cost is dirprune's own)",
    cost="about 10 n coalitions a group, given what the other groups have lost; of large networks none, "
    "but passes over the images",
    version=4,
    needs_data=True,
    needs_gradients=True,
    stochastic=False,
)
class GreedyPath(Scorer):
    """Scores each channel by how long it survives; see `compute_path`.

    The order within each group is nested, so that it serves every architecture.
    """

    Options = PathOptions
    is_kept_in_parts = True

    @property
    def is_timed(self) -> bool:
        """Whether latency is what is saved."""
        return self.options.cost == "latency"

    def depends_on(self, context: ScoringContext) -> Any:
        """Return the machine and the device where latency is what is saved."""
        return describe_machine(context.device) if self.is_timed else None

    def score(self, context: ScoringContext) -> Scores:
        """Return places >= 0, each of shape (n_channels,); no two channels of a group have the same."""
        return compute_path(context, self.options).scores() if context.grouping.groups else {}


def compute_path(
    context: ScoringContext, options: PathOptions | None = None, cost: Cost | None = None
) -> Path:
    """Remove channels from the whole network, always where the loss rises least per unit of cost saved.

    Each channel is judged given all that was removed before, in whatever group. With a workspace in the
    context, an interrupted path goes on where it was.

    Args:
        context: The network must be in evaluation mode; it is left as it is.
        options: The defaults when None.
        cost: Costs of architectures, such as measured latencies, instead of those that the options name;
            lower with every channel less, or as low.
    """
    options = options or PathOptions()
    is_named = cost is None  # of other costs, nobody could say which file is theirs
    cost = cost or find_cost(context, options)
    context, is_judged_exactly = choose_examples(context, options)
    with exact_products(context.device):
        if is_judged_exactly:
            return _ExactWalk(context, options, cost).walk()
        lines = open_lines(GreedyPath(options), context) if is_named else None
        return CurvatureWalk(context, cost, options.step, options.recalibrate, lines).walk()


def choose_examples(context: ScoringContext, options: PathOptions) -> tuple[ScoringContext, bool]:
    """Return the context with the images that judge, and whether they judge every candidate."""
    few = with_examples(context, options.n_examples or N_EXACT)
    if is_exact(few, options.search, options.value):
        return few, True
    return with_examples(context, options.n_examples or N_BY_CURVATURE), False


class _ExactWalk(Walk):
    """Judges every candidate by running the network without it.

    What is known of a group from earlier is taken for a lower bound until its turn comes.
    """

    def __init__(self, context: ScoringContext, options: PathOptions, cost: Cost) -> None:
        super().__init__(context, cost)
        self.options = options
        self.states = {
            name: Elimination(np.ones(n, dtype=bool), options.lazy) for name, n in self.full.items()
        }
        self.is_settled: set[str] = set()  # groups that were looked at since the last removal
        self.opened: CoalitionValues | None = None

    def remove_some(self) -> None:
        """Remove channels of the group that promises to lose least, or learn that it does not."""
        saved = self.compute_savings()
        rates = {name: compute_rate(self.states[name].lowest, saved[name]) for name in saved}
        first, *others = sorted(rates, key=rates.__getitem__)
        limit = compute_rate(rates[others[0]], 1 / saved[first]) if others else float("inf")
        self._remove(first, limit)

    def _remove(self, name: str, limit: float) -> None:
        """Remove channels of one group that cost no more than the limit, and none if all cost more.

        Where nothing has changed since the group was looked at, its cheapest channel is that of all groups:
        it goes, whatever rounding says of the limit. Of those behind it nobody knows that.
        """
        state = self.states[name]
        if math.isfinite(limit):
            limit += self.options.slack * abs(limit)
        n_at_once = max(1, int(self.options.step * state.n_left))
        removals = state.remove(
            self._open(name), state.n_left - 1, n_at_once, limit, is_due=name in self.is_settled
        )
        self.is_settled = set() if removals else self.is_settled | {name}
        for removal in removals:
            self.record(name, removal.channel, removal.value)

    def _open(self, name: str) -> CoalitionValues:
        """Return the values of a group's coalitions given what the others have lost."""
        if self.opened is not None and self.opened.group == name:
            return self.opened
        kept = {
            other: state.is_left.nonzero()[0].tolist()
            for other, state in self.states.items()
            if other != name and not state.is_left.all()
        }
        options = self.options
        self.opened = open_values(
            self.context, name, kept, value=options.value, is_recalibrated=options.recalibrate
        )
        return self.opened


def find_cost(context: ScoringContext, options: PathOptions) -> Cost:
    """Return what architectures cost by the options; with a workspace, latencies are measured once.

    Args:
        context: That of the scoring, with all of its calibration images.
        options: Name the cost.
    """
    context, _ = choose_examples(context, options)
    inputs, _ = context.load(slice(0, N_FOR_LATENCY))
    model, metric = CostModel(context.network, context.grouping, inputs[:2]), options.cost
    if metric == "latency":
        model, metric = model.with_latency(*_find_latency(context, inputs)), LATENCY
    return lambda architecture: float(model.costs(architecture).as_dict()[metric])


def _find_latency(context: ScoringContext, inputs: Tensor) -> tuple[float, list[float]]:
    """Return the constant and the rates of modelled latencies, as measured now or before an interruption."""
    lines = None
    if context.workspace is not None:
        of = {"context": context_key(context), "seed": context.seed, "setting": describe_setting(inputs)}
        lines = CheckedLines(context.workspace / "latencies" / f"{digest(of)}.jsonl")
        for record in lines.read():  # the first one counts for all
            return record["constant_ms"], record["rates_ms"]
    # Trials may run beside it. Of a path the order counts, which a few late passes do not turn over.
    fitted = fit_latency(
        context.network, context.grouping, inputs, seed=context.seed, measure=measure_latency
    )
    if lines is not None:
        lines.append({"constant_ms": fitted.constant_ms, "rates_ms": list(fitted.rates_ms)})
    return fitted.constant_ms, list(fitted.rates_ms)
