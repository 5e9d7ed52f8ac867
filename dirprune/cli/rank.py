"""`dirprune rank`: the importance of every channel of a trained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from dirprune.cli.greedy_paths import format_path
from dirprune.cli.options import DataOptions, MethodOptions, check_can_write
from dirprune.cli.output_files import check_output_files
from dirprune.cli.own_method import find_method
from dirprune.cli.printing import format_table
from dirprune.cli.ranking import Ranking, compute_ranking
from dirprune.cli.subjects import (
    Subject,
    format_comparison,
    look_for_groups,
    tell_of_uncounted,
    trained_subject,
)
from dirprune.errors import ConfigurationError, ImportanceError
from dirprune.files import write_json
from dirprune.importance import Scorer, create
from dirprune.importance.greedy.path import GreedyPath
from dirprune.records.scores import write_scores_png

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
    scoring = dataclasses.replace(scoring, method=find_method(scoring.method))
    others = tuple(find_method(name) for name in others)
    assert scoring.method is not None
    scorer = _create_scorer(scoring.method, scoring.values())
    if budget is not None and not isinstance(scorer, GreedyPath):
        raise ConfigurationError(f"--budget is of greedy-path, got {scoring.method}; leave it out")
    compared = {name: _create_scorer(name, {}) for name in others}
    check_output_files({"--output": output, "--plot": plot}, {"--plot": (".png",)})
    check_can_write(scoring.cache, is_folder=True, option="--cache")
    subject = trained_subject(weights, network, data)
    grouping = look_for_groups(subject.network, subject.roles.example_input())
    tell_of_uncounted(subject)
    grouping.check_any()
    ranking = compute_ranking(scorer, scoring, compared, budget, subject, grouping)
    click.echo("\n" + format_comparison({"network": subject.measure(subject.network)}))
    click.echo(format_ranking(ranking))
    if output is not None:
        write_scores(output, weights, scorer, subject, ranking)
        click.echo(f"\nscores: {output}")
    if plot is not None:
        write_scores_png(plot, {ranking.method: ranking.scores, **ranking.of_others}, ranking.half_widths)
        click.echo(f"\npicture: {plot}")


def _create_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    scorer = create(name, options)
    if not isinstance(scorer, Scorer):
        raise ImportanceError(
            f"{name} chooses channels for one architecture and has no scores; try 'dirprune prune'"
        )
    return scorer


def write_scores(output: Path, weights: Path, scorer: Scorer, subject: Subject, ranking: Ranking) -> None:
    """Write a ranking with all that it depends on as JSON."""
    groups: dict[str, dict[str, Any]] = {
        name: {"scores": values.tolist(), "order": _order(values)} for name, values in ranking.scores.items()
    }
    for name, widths in ranking.half_widths.items():
        groups[name]["half_widths"] = widths.tolist()
    content = {
        "weights": str(weights),
        "method": {"name": ranking.method, "options": vars(scorer.options)},
        "seed": subject.seed,
        "data": subject.describe_data(),
        "groups": groups,
    }
    if ranking.path:
        content["path"] = [dataclasses.asdict(point) for point in ranking.path]
    if ranking.within_budget is not None:
        content["within_budget"] = dataclasses.asdict(ranking.within_budget)
    write_json(output, content, SCHEMA)


def format_ranking(ranking: Ranking) -> str:
    """Return what a ranking has found, as text."""
    method, cost = ranking.method, ranking.cost
    is_timed = cost == "latency"
    origin = "from the cache" if ranking.was_cached else "computed"
    lines = [f"\n{method}: scores {origin}{', intervals computed' if ranking.has_new_intervals else ''}"]
    lines.append(format_scores(ranking.scores, ranking.half_widths))
    if ranking.lacks_intervals:
        lines.append(f"no intervals: {method}, used like this, does not know its error; shapley does")
    if ranking.path:
        shares = f"{len(ranking.path)} shares of {cost}"
        lines.append(f"\nthe path at {shares}, right after pruning and recalibration:")
        lines.append(format_path(ranking.path, is_timed))
    if (point := ranking.within_budget) is not None:
        lines.append(f"\nwithin {ranking.budget:,.10g} {'ms' if is_timed else cost}:")
        lines.append(format_path([point], is_timed))
    if ranking.of_others:
        lines.append(f"\nrank correlation with {method} (Spearman):")
        lines.append(format_correlations(ranking.scores, ranking.of_others))
    return "\n".join(lines)


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
            f"WARNING: in {', '.join(noisy)} the intervals are wider than the scores differ, so that they "
            "do not show an order; try more --evaluations"
        )
    return "\n".join([format_table(header, rows), *notes])


def format_correlations(
    scores: Mapping[str, torch.Tensor], others: Mapping[str, Mapping[str, torch.Tensor]]
) -> str:
    """Return a table of rank correlations of every other method's scores with these, by group."""
    from scipy.stats import spearmanr  # a second to import

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
