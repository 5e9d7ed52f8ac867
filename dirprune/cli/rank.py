"""`dirprune rank`: the importance of every channel of a trained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from scipy.stats import spearmanr

from dirprune.cli.greedy_paths import PathPoint, format_path, measure_path, measure_point
from dirprune.cli.options import (
    DataOptions,
    MethodOptions,
    check_can_write,
)
from dirprune.cli.printing import ScoringProgress, format_table, kept_on_interrupt
from dirprune.cli.subjects import Subject, format_comparison, trained_subject
from dirprune.errors import ConfigurationError, ImportanceError
from dirprune.files import write_json
from dirprune.identity import digest
from dirprune.importance import (
    ScoreCache,
    Scorer,
    ScoringContext,
    create,
    find_scores,
)
from dirprune.importance.cache import score_key
from dirprune.importance.greedy import Path as GreedySteps
from dirprune.importance.greedy.path import GreedyPath, find_cost
from dirprune.importance.shapley import ShapleyScorer
from dirprune.records.scores import write_scores_png
from dirprune.tracing import find_groups

SCHEMA = 1
N_SHOWN = 5


def rank(
    weights: Path | None,
    network: str | None,
    scoring: MethodOptions,
    others: tuple[str, ...],
    budget: float | None,
    data: DataOptions,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Score the channels of a trained network, which stays as it is; a higher score means keep."""
    if weights is None or scoring.method is None:
        missing = "--weights FILE" if weights is None else "--method NAME"
        raise ConfigurationError(
            f"expected {missing}, got nothing; try 'dirprune rank --list' for the methods"
        )
    scorer = _create_scorer(scoring.method, scoring.values())
    if budget is not None and not isinstance(scorer, GreedyPath):
        raise ConfigurationError(f"--budget is of greedy-path, got {scoring.method}; leave it out")
    compared = {name: _create_scorer(name, {}) for name in others}
    for file in filter(None, (output, plot)):
        check_can_write(file, is_folder=False)
    check_can_write(scoring.cache, is_folder=True, option="--cache")
    subject = trained_subject(weights, network, data)
    grouping = find_groups(subject.network, subject.roles.example_input().to(subject.device))
    grouping.check_any()
    cache = ScoreCache(scoring.cache)
    scored = [(scoring.method, scorer)] * (2 if isinstance(scorer, ShapleyScorer) else 1)  # and its intervals
    pieces = [(name, method.is_kept_in_parts) for name, method in [*scored, *compared.items()]]
    with kept_on_interrupt(cache, pieces), ScoringProgress(grouping.names) as progress:
        context = ScoringContext(
            subject.network,
            grouping,
            subject.roles.calibration,
            subject.roles.normalise,
            subject.task,
            subject.seed,
            subject.device,
            memory_mb=scoring.memory_mb,
            progress=progress,
        )
        cost_of = None
        if isinstance(scorer, GreedyPath):
            cost_of = find_cost(dataclasses.replace(context, workspace=cache.folder), scorer.options)
            check_budget(budget, cost_of(dict.fromkeys(grouping.names, 1)))
        scores, was_cached = find_scores(scorer, context, cache=cache)
        half_widths, is_known = find_half_widths(scorer, context, cache)
        of_others = {name: find_scores(other, context, cache=cache)[0] for name, other in compared.items()}
        path, within = [], []
        if cost_of is not None:
            removals = GreedySteps.from_scores({name: scores[name] for name in grouping.names}, cost_of)
            path = measure_path(subject, grouping, removals)
            within = [] if budget is None else [measure_point(subject, grouping, removals, budget)]
    scores = {name: scores[name] for name in grouping.names}
    click.echo("\n" + format_comparison({"network": subject.measure(subject.network)}))
    origin = "from the cache" if was_cached else "computed"
    click.echo(
        f"\n{scoring.method}: scores {origin}{', intervals computed' if was_cached > is_known else ''}"
    )
    click.echo(format_scores(scores, half_widths))
    if isinstance(scorer, ShapleyScorer) and not half_widths:
        click.echo(f"no intervals: {scoring.method}, used like this, does not know its error; shapley does")
    cost = getattr(scorer.options, "cost", "")
    is_timed = cost == "latency"
    if path:
        click.echo(f"\nthe path at {len(path)} shares of {cost}, right after pruning and recalibration:")
        click.echo(format_path(path, is_timed))
    if within:
        click.echo(f"\nwithin {budget:,.10g} {'ms' if is_timed else cost}:")
        click.echo(format_path(within, is_timed))
    if of_others:
        click.echo(f"\nrank correlation with {scoring.method} (Spearman):")
        click.echo(format_correlations(scores, of_others))
    if output is not None:
        write_scores(output, weights, scoring.method, scorer, subject, scores, half_widths, path, within)
        click.echo(f"\nscores: {output}")
    if plot is not None:
        write_scores_png(plot, {scoring.method: scores, **of_others}, half_widths)
        click.echo(f"\npicture: {plot}")


def check_budget(budget: float | None, lowest: float) -> None:
    """Refuse a budget within which there is no network, before anything is scored.

    Raises:
        ConfigurationError: If it is below what the smallest network costs.
    """
    if budget is not None and budget < lowest:
        raise ConfigurationError(
            f"--budget must be at least {lowest:,.10g}, what one channel in each group costs, "
            f"got {budget:,.10g}"
        )


def _create_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    scorer = create(name, options)
    if not isinstance(scorer, Scorer):
        raise ImportanceError(
            f"{name} chooses channels for one architecture and has no scores; try 'dirprune prune'"
        )
    return scorer


def write_scores(
    output: Path,
    weights: Path,
    method: str,
    scorer: Scorer,
    subject: Subject,
    scores: Mapping[str, torch.Tensor],
    half_widths: Mapping[str, torch.Tensor],
    path: Sequence[PathPoint],
    within: Sequence[PathPoint] = (),
) -> None:
    """Write scores with all that they depend on as JSON."""
    groups: dict[str, dict[str, Any]] = {
        name: {"scores": values.tolist(), "order": _order(values)} for name, values in scores.items()
    }
    for name, widths in half_widths.items():
        groups[name]["half_widths"] = widths.tolist()
    content = {
        "weights": str(weights),
        "method": {"name": method, "options": vars(scorer.options)},
        "seed": subject.seed,
        "data": {
            "name": subject.roles.name,
            "validation_from": subject.header.validation_from,
            "seed": subject.header.data_seed,
            "n_calibration": len(subject.roles.calibration),
            "fingerprint": subject.roles.calibration.fingerprint(),
        },
        "groups": groups,
    }
    if path:
        content["path"] = [dataclasses.asdict(point) for point in path]
    if within:
        content["within_budget"] = dataclasses.asdict(within[0])
    write_json(output, content, SCHEMA)


@torch.no_grad()
def find_half_widths(
    scorer: Scorer, context: ScoringContext, cache: ScoreCache
) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the half widths of the 95% intervals of scores, and whether they were known.

    Args:
        scorer: The one that was scored with; what that found beside scores is taken as it is.
        context: That of the scoring.
        cache: Likewise; half widths are kept there as well.
    Returns:
        Shape (n_channels,), of the groups for which the method has them.
    """
    if not isinstance(scorer, ShapleyScorer):
        return {}, True

    def compute() -> dict[str, torch.Tensor]:
        estimates = scorer.estimates
        if estimates is None:
            estimates = scorer.estimate(dataclasses.replace(context, workspace=cache.folder))
        return {
            name: torch.from_numpy(found.half_widths)
            for name, found in estimates.items()
            if found.half_widths is not None
        }

    return cache.get_or_compute(digest({"half_widths_of": score_key(scorer, context)}), compute)


def format_scores(scores: Mapping[str, torch.Tensor], half_widths: Mapping[str, torch.Tensor]) -> str:
    """Return a table with a line per group: its range of scores, and its best and worst channels.

    Args:
        scores: For each group a tensor of shape (n_channels,); higher means keep.
        half_widths: Of the scores' 95% intervals, likewise, for some groups or none; their median is shown.
    """
    rows = []
    noisy = []
    for name, values in scores.items():
        order = _order(values)
        numbers = [f"{float(number):.4g}" for number in (values.max(), values.median(), values.min())]
        if half_widths:
            numbers.append(f"{float(half_widths[name].median()):.2g}" if name in half_widths else "unknown")
            if name in half_widths and half_widths[name].median() > values.std(correction=0):
                noisy.append(name)
        best, worst = order[:N_SHOWN], order[N_SHOWN:][-N_SHOWN:][::-1]
        rows.append([name, str(len(values)), *numbers, " ".join(map(str, best)), " ".join(map(str, worst))])
    error = ["95% +-"] if half_widths else []
    header = ["group", "channels", "highest", "median", "lowest", *error, "best first", "worst first"]
    notes = []
    if half_widths:
        notes.append("95% +-: half the width of the median channel's 95% interval, for these images")
        if len(half_widths) < len(scores):
            notes.append("unknown: too few evaluations for an interval")
    if noisy:
        notes.append(
            f"WARNING: in {', '.join(noisy)} the intervals are wider than the scores differ, so that the "
            "order is mostly noise; try more --evaluations"
        )
    return "\n".join([format_table(header, rows), *notes])


def format_correlations(
    scores: Mapping[str, torch.Tensor], others: Mapping[str, Mapping[str, torch.Tensor]]
) -> str:
    """Return a table of rank correlations of every other method's scores with these, by group."""
    rows = []
    for name, values in scores.items():
        cells = []
        for other in others.values():
            is_order = min(len(values.unique()), len(other[name].unique())) > 1
            cells.append(f"{spearmanr(values, other[name]).statistic:+.2f}" if is_order else "no order")
        rows.append([name, *cells])
    return format_table(["group", *others], rows)


def _order(scores: torch.Tensor) -> list[int]:
    """Return channels by falling score: `order[k]` is the channel in place k."""
    return [int(channel) for channel in torch.argsort(scores, descending=True, stable=True)]
