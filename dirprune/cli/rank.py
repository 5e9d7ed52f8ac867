"""`dirprune rank`: the importance of every channel of a trained network."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

import click
import torch

from dirprune.cli.options import (
    FILE,
    DataOptions,
    MethodOptions,
    check_can_write,
    data_options,
    method_options,
)
from dirprune.cli.printing import ScoringProgress, format_table
from dirprune.cli.subjects import format_comparison, trained_subject
from dirprune.errors import ConfigurationError, ImportanceError, suggest
from dirprune.files import write_json
from dirprune.importance import (
    Method,
    ScoreCache,
    Scorer,
    ScoringContext,
    create,
    find_scores,
    get_method,
    list_methods,
)
from dirprune.importance.shapley import ShapleyScorer
from dirprune.tracing import find_groups

SCHEMA = 1
N_SHOWN = 5
WIDTH = 100


@click.command
@click.option("--weights", type=FILE, help="Weights of the trained network.")
@click.option(
    "--network", metavar="NAME", help="Their network, where the file does not say it. Default: lenet5."
)
@method_options
@click.option(
    "--list",
    "listed",
    is_flag=False,
    flag_value="*",
    metavar="[PATTERN]",
    help="List the importance methods, or those that match, such as 'shapley*', and leave.",
)
@data_options
@click.option("--output", type=FILE, help="JSON file to write the scores to.")
def rank(
    weights: Path | None,
    network: str | None,
    scoring: MethodOptions,
    listed: str | None,
    data: DataOptions,
    output: Path | None,
) -> None:
    """Score the channels of a trained network, which stays as it is; a higher score means keep."""
    if listed is not None:
        click.echo(format_methods(listed))
        return
    if weights is None or scoring.method is None:
        missing = "--weights FILE" if weights is None else "--method NAME"
        raise ConfigurationError(
            f"expected {missing}, got nothing; try 'dirprune rank --list' for the methods"
        )
    values = scoring.values()
    scorer = create(scoring.method, values)
    if not isinstance(scorer, Scorer):
        raise ImportanceError(
            f"{scoring.method} chooses channels for one architecture and has no scores; try 'dirprune prune'"
        )
    if output is not None:
        check_can_write(output, is_folder=False)
    check_can_write(scoring.cache, is_folder=True, option="--cache")
    subject = trained_subject(weights, network, data)
    grouping = find_groups(subject.network, subject.roles.example_input().to(subject.device))
    with ScoringProgress(grouping.names) as progress:
        context = ScoringContext(
            subject.network,
            grouping,
            subject.roles.calibration,
            subject.roles.normalise,
            subject.task,
            subject.seed,
            subject.device,
            progress=progress,
        )
        cache = ScoreCache(scoring.cache)
        scores, was_cached = find_scores(scorer, context, cache=cache)
        half_widths = estimate_half_widths(scorer, dataclasses.replace(context, workspace=cache.folder))
    click.echo("\n" + format_comparison({"network": subject.measure(subject.network)}))
    click.echo(f"\n{scoring.method}: scores " + ("from the cache" if was_cached else "computed"))
    click.echo(format_scores({name: scores[name] for name in grouping.names}, half_widths))
    if output is not None:
        groups = {
            name: {"scores": scores[name].tolist(), "order": _order(scores[name])} for name in grouping.names
        }
        for name, widths in half_widths.items():
            groups[name]["half_widths"] = widths.tolist()
        method = {"name": scoring.method, "options": vars(scorer.options)}
        write_json(output, {"weights": str(weights), "method": method, "groups": groups}, SCHEMA)
        click.echo(f"\nscores: {output}")


def format_methods(pattern: str = "*") -> str:
    """Return what is known of the methods whose names match a pattern with wildcards.

    Raises:
        ConfigurationError: If there is none.
    """
    names = list_methods(pattern)
    if not names:
        raise ConfigurationError(
            f"no importance method matches {pattern!r}{suggest(pattern, list_methods())}"
        )
    return "\n\n".join(_format_method(get_method(name)) for name in names)


def _format_method(method: Method) -> str:
    is_selector = not issubclass(method.factory, Scorer)
    needs = (
        ["weights"]
        + ["calibration images"] * method.needs_data
        + ["gradients"] * method.needs_gradients
        + ["a seed"] * method.stochastic
        + ["an architecture ('dirprune prune' only)"] * is_selector
    )
    facts = {
        "paper": method.paper,
        "needs": ", ".join(needs),
        "costs": method.cost,
        "options": ", ".join(f"{name}={value}" for name, value in method.options.items()) or "none",
    }
    lines = [_wrap(f"{method.name}: ", method.summary)]
    lines += [_wrap(f"    {label:9}", text) for label, text in facts.items() if text]
    return "\n".join(lines)


def _wrap(label: str, text: str) -> str:
    """Return text behind a label in lines of at most `WIDTH` columns."""
    indent = " " * (len(label) if label.startswith(" ") else 4)
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


@torch.no_grad()
def estimate_half_widths(scorer: Scorer, context: ScoringContext) -> dict[str, torch.Tensor]:
    """Return the half widths of the 95% intervals of scores, for the groups for which a method has them.

    Args:
        context: With the workspace of the scoring, in which the values of coalitions are found again.
    """
    if not isinstance(scorer, ShapleyScorer):
        return {}
    estimates = scorer.estimate(context).items()
    return {
        name: torch.from_numpy(found.half_widths)
        for name, found in estimates
        if found.half_widths is not None
    }


def format_scores(scores: dict[str, torch.Tensor], half_widths: dict[str, torch.Tensor]) -> str:
    """Return a table with a line per group: its range of scores, and its best and worst channels.

    Args:
        scores: For each group a tensor of shape (n_channels,); higher means keep.
        half_widths: Of the scores' 95% intervals, likewise, for some groups or none; their median is shown.
    """
    rows = []
    for name, values in scores.items():
        order = _order(values)
        numbers = [f"{float(number):.4g}" for number in (values.max(), values.median(), values.min())]
        if half_widths:
            numbers.append(f"{float(half_widths[name].median()):.2g}" if name in half_widths else "unknown")
        best, worst = order[:N_SHOWN], order[N_SHOWN:][-N_SHOWN:][::-1]
        rows.append([name, str(len(values)), *numbers, " ".join(map(str, best)), " ".join(map(str, worst))])
    error = ["95% +-"] if half_widths else []
    header = ["group", "channels", "highest", "median", "lowest", *error, "best first", "worst first"]
    return format_table(header, rows)


def _order(scores: torch.Tensor) -> list[int]:
    """Return channels by falling score: `order[k]` is the channel in place k."""
    return [int(channel) for channel in torch.argsort(scores, descending=True, stable=True)]
