"""`dirprune covariances`: which channels of a trained network go together, and do seeds agree about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dirprune.cli.options import LAPLACE, DataOptions, check_can_write
from dirprune.cli.printing import ScoringProgress, format_table, kept_on_interrupt
from dirprune.cli.subjects import look_for_groups, trained_subject
from dirprune.errors import ConfigurationError, suggest
from dirprune.files import write_json
from dirprune.importance import ScoreCache, ScoringContext, create, get_method, list_methods
from dirprune.importance.simplex.covariances import (
    LEAST_CORRELATION,
    GroupCovariances,
    Pair,
    check_has_covariances,
    compute_covariances,
)
from dirprune.importance.simplex.laplace import compute_laplace_covariances
from dirprune.importance.simplex.null import count_draws
from dirprune.importance.simplex.scorers import SimplexSwitches
from dirprune.records.covariances import PART, SEED, format_agreement, write_covariances_png

SCHEMA = 3
N_SHOWN = 3
N_WRITTEN = 50


def covariances(
    weights: Path,
    network: str | None,
    method: str,
    method_options: tuple[tuple[str, str], ...],
    seeds: tuple[int, ...],
    null_draws: int | None,
    data: DataOptions,
    cache: Path,
    memory_mb: int,
    output: Path,
) -> None:
    """Show which channels of a trained network go together; the network stays as it is."""
    fitted = _create_fitted(method, method_options)
    check_can_write(output, is_folder=True)
    check_can_write(cache, is_folder=True, option="--cache")
    subject = trained_subject(weights, network, data)
    grouping = look_for_groups(subject.network, subject.roles.example_input())
    grouping.check_any()
    fit = PART if fitted is None else SEED
    n_default = count_draws(grouping.n_channels.values()) if fitted is None else 0
    n_draws = n_default if null_draws is None else null_draws
    n_draws = n_draws if len(seeds) > 1 else 0  # one seed agrees with nobody
    kept, names = ScoreCache(cache), list(map(str, seeds))
    if fitted is not None:
        names += [f"{seed} of null draw {draw}" for draw in range(1, n_draws + 1) for seed in seeds]
    pieces = [(name, False) for name in names]
    with (
        kept_on_interrupt(kept, pieces, f"covariances of {fit}"),
        ScoringProgress(grouping.names) as progress,
    ):
        context = ScoringContext(
            subject.network,
            grouping,
            subject.roles.calibration,
            subject.roles.normalise,
            subject.task,
            seeds[0],
            subject.device,
            memory_mb=memory_mb,
            progress=progress,
        )
        if fitted is None:
            found = compute_laplace_covariances(context, len(seeds), cache=kept, n_draws=n_draws)
        else:
            found = compute_covariances(fitted, context, seeds, kept, n_draws)
    click.echo(f"\n{method}, one posterior for each {fit} {', '.join(map(str, seeds))}: pairs of channels\n")
    click.echo(format_pairs(found))
    click.echo()
    for name, group in found.items():
        click.echo(f"{name}: {format_agreement(group.agreement(), fit)}")
    described = {"name": method, "options": {} if fitted is None else dataclasses.asdict(fitted.options)}
    origin = {
        "weights": str(weights),
        "method": described,
        "seeds": list(seeds),
        "data": subject.describe_data(),
    }
    _write(output, origin, found, fit)
    click.echo(f"\ncovariances: {output / 'covariances.json'} and a picture of each group beside it")


def _create_fitted(method: str, method_options: tuple[tuple[str, str], ...]) -> SimplexSwitches | None:
    """Return what is fitted to find covariances; None for Laplace's posterior, for which nothing is.

    Raises:
        ConfigurationError: If an option is given twice, or the method is no posterior on the simplex.
        ImportanceError: If the method or its options have no covariances.
    """
    options = dict(method_options)
    if len(options) < len(method_options):
        raise ConfigurationError("expected each method option once, got one twice; leave one out")
    if method == LAPLACE and options:
        raise ConfigurationError(f"laplace has no options, got {', '.join(options)}; leave them out")
    known = [
        LAPLACE,
        *(name for name in list_methods() if issubclass(get_method(name).factory, SimplexSwitches)),
    ]
    if method not in known:
        raise ConfigurationError(
            f"expected a posterior on the simplex, got {method!r}{suggest(method, known)}"
        )
    return None if method == LAPLACE else check_has_covariances(create(method, options))


def _write(output: Path, origin: Mapping[str, Any], found: Mapping[str, GroupCovariances], fit: str) -> None:
    """Write covariances, and a picture of each group.

    Args:
        output: The folder.
        origin: Weights, method, seeds and data that they come from.
        found: By group.
        fit: What there is one posterior for.
    """
    groups = {name: describe_group(group) for name, group in found.items()}
    write_json(output / "covariances.json", {**origin, "groups": groups}, SCHEMA)
    for name, group in found.items():
        title = f"{name}: switches of {group.means.shape[1]} channels, {origin['method']['name']}"
        write_covariances_png(output / f"covariances-{name}.png", group, origin["seeds"], title, fit)


def format_pairs(found: Mapping[str, GroupCovariances]) -> str:
    """Return a table of the strongest pairs of every group, most positive excess first."""
    rows = []
    for name, group in found.items():
        above, below = group.pairs(N_SHOWN)
        for pair in [*above, *below[::-1]]:
            first, second = pair.channels
            n_seeds = len(group.means)
            rows.append(
                [
                    name,
                    f"{first}, {second}",
                    f"{pair.correlation:+.3f}",
                    f"{pair.excess:+.3f}",
                    f"{pair.n_positive} of {n_seeds}",
                    f"{pair.n_agreeing} of {n_seeds}",
                ]
            )
    if not rows:
        return "no pair differs from the Dirichlet with the same means"
    header = [
        "group",
        "channels",
        "correlation",
        "excess",
        f"positive (> {LEAST_CORRELATION}) in",
        "excess agrees in",
    ]
    return format_table(header, rows)


def describe_group(group: GroupCovariances) -> dict[str, Any]:
    """Return what is stored of a group: means of every seed, agreement, strongest pairs, average matrices.

    Matrices are covariances; what is said of a pair is over both standard deviations, as in the table.
    """

    def describe(pairs: list[Pair]) -> list[dict[str, Any]]:
        return [{**dataclasses.asdict(pair), "channels": list(pair.channels)} for pair in pairs]

    above, below = group.pairs(N_WRITTEN)
    agreement = dataclasses.asdict(group.agreement())
    null = agreement["null"] and {name: list(values) for name, values in agreement["null"].items()}
    return {
        "means": group.means.tolist(),
        "agreement": {**agreement, "n_positive": list(agreement["n_positive"]), "null": null},
        "positive_excess": describe(above),
        "negative_excess": describe(below),
        "covariance": group.covariances.mean(0).tolist(),
        "excess_covariance": group.excess().mean(0).tolist(),
    }
