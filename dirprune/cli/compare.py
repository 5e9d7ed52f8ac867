"""`dirprune compare`: studies side by side, judged alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dirprune.cli.output_files import check_output_files
from dirprune.cli.printing import format_count, format_table
from dirprune.cost import COST_METRICS
from dirprune.errors import ConfigurationError, StudyError
from dirprune.records.comparability import check_comparable, find_warnings
from dirprune.records.comparison import By, ComparedStudy, Comparison, Pairing, Spread
from dirprune.records.comparison import compare as compute_comparison
from dirprune.records.comparison_picture import write_comparison_png
from dirprune.records.comparison_tables import STATES, write_comparison
from dirprune.records.ending import read_ending
from dirprune.records.folder import StudyFolder
from dirprune.records.formatting import format_metric, format_with_spread
from dirprune.tuning import storage

ENDINGS = {"--output": (".csv", ".json"), "--plot": (".png",)}


def compare(
    studies: tuple[Path, ...],
    by: By,
    floor: str | None,
    budgets: str,
    output: Path | None,
    plot: Path | None,
    storage_url: str,
) -> None:
    """Compare the fronts of studies."""
    shares = read_budgets(budgets)
    check_output_files({"--output": output, "--plot": plot}, ENDINGS)
    compared = read_studies(studies, storage_url)
    check_comparable(compared)
    if plot is not None and len(compared[0].summary.objectives) < 2:
        raise ConfigurationError("expected two objectives to draw fronts of, got one; leave --plot out")
    comparison = compute_comparison(compared, by, floor, shares)
    warnings = find_warnings(compared, by)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(describe_studies(comparison, compared))
    click.echo(f"\n{format_groups(comparison, by)}\n\n{format_chosen(comparison, by)}")
    if output is not None:
        write_comparison(output, comparison, warnings)
    if plot is not None:
        write_comparison_png(plot, comparison)
    if written := [str(path) for path in (output, plot) if path is not None]:
        click.echo(f"\nfiles: {', '.join(written)}")


def read_budgets(text: str) -> list[float]:
    """Read shares of the dense network's cost, as in "0.75,0.5".

    Raises:
        ConfigurationError: If one of them is no number in (0, 1].
    """
    shares = []
    for part in text.split(","):
        try:
            share = float(part)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise ConfigurationError(
                f"expected --budgets as shares of the dense network's cost in (0, 1], got {part.strip()!r}; "
                "try 0.75,0.5,0.25"
            )
        shares.append(share)
    return list(dict.fromkeys(shares))


def read_studies(paths: Sequence[Path], storage_url: str = "") -> list[ComparedStudy]:
    """Read studies; what is there but holds none is left out, and named.

    Args:
        paths: Of folders.
        storage_url: The database of those that have no journal file.
    Raises:
        StudyError: If fewer than two are left, or one cannot be read.
    """
    others = [path for path in paths if path.exists() and not StudyFolder(path).study_json.exists()]
    roots = [path for path in paths if path not in others]
    left_out = f"no studies: {', '.join(map(str, others))}" if others else ""
    if len(roots) < 2:
        raise StudyError(
            f"expected two studies or more to compare, got {len(roots)}"
            f"{f' ({left_out})' if left_out else ''}; give their folders, <output>/<study>"
        )
    if left_out:
        click.echo(f"left out, {left_out}", err=True)
    names = [root.resolve().name for root in roots]
    labels = [name if names.count(name) == 1 else str(root) for name, root in zip(names, roots, strict=True)]
    return [read_study(root, label, storage_url) for root, label in zip(roots, labels, strict=True)]


def read_study(root: Path, label: str, storage_url: str = "") -> ComparedStudy:
    """Read one study.

    Raises:
        StudyError: If there is none, or it cannot be read.
    """
    folder = StudyFolder(root)
    payload = storage.read_study_json(folder)
    records = storage.read_records(folder, "" if payload["storage"] == storage.locate("") else storage_url)
    return ComparedStudy(
        label,
        storage.make_summary(folder, payload, len(records), resumed=True),
        payload["description"],
        payload.get("dense", {}).get("metrics", {}),
        records,
        read_ending(folder),
        payload.get("samplers", ()),
    )


def describe_studies(comparison: Comparison, studies: Sequence[ComparedStudy]) -> str:
    """Return what was studied, and where hypervolumes begin."""
    description, dense = studies[0].description, studies[0].dense
    names = [str(description[part]["name"]) for part in ("network", "data") if part in description]
    known = {**dense, **studies[0].summary.dense_costs}
    is_one = len({study.description.get("weights") for study in studies}) == 1
    told = _name_values({m: known[m] for m in comparison.metrics if m in known}) if is_one else ""
    return (
        f"{len(studies)} studies of {' on '.join(names)}{f'; dense: {told}' if told else ''}\n"
        f"hypervolumes begin at {_name_values(comparison.reference_point)}; "
        "costs count as shares of the dense network's"
    )


def format_groups(comparison: Comparison, by: By) -> str:
    """Return what each group has as a table, and below it who is above whom with equal seeds."""
    header = [by, "studies", *STATES, "images", "hypervolume"] + ["95% by latency"] * comparison.has_margins
    rows = [
        [
            group.name,
            str(len(group.results)),
            *(f"{group.count(*states):,}" for states in STATES.values()),
            "" if group.n_images is None else f"{group.n_images:,}",
            _format("hypervolume", group.hypervolume),
            *([_format_bounds(group.bounds)] if comparison.has_margins else []),
        ]
        for group in comparison.groups
    ]
    pairings = [describe_pairing(pairing, comparison.has_margins) for pairing in comparison.pairings]
    return "\n".join([format_table(header, rows), *(pairings or ["no two groups have a seed in common"])])


def describe_pairing(pairing: Pairing, has_margins: bool = False) -> str:
    """Return at how many equal seeds the first group is above the second.

    Args:
        pairing: The two groups.
        has_margins: Whether values have errors, by which either may be above the other.
    """
    near = "too near to tell" if has_margins else "as high"
    equal = f", and {near} in {pairing.n_equal}" if pairing.n_equal else ""
    seeds = ", ".join(map(str, sorted(pairing.seeds)))
    return (
        f"equal seeds ({seeds}): {pairing.first} above {pairing.second} in {pairing.n_above} of "
        f"{format_count(len(pairing.seeds), 'pair')}{equal}"
    )


def format_chosen(comparison: Comparison, by: By) -> str:
    """Return as a table what validation chose within each budget."""
    rows = [
        [
            group.name,
            f"{budget.share:g}",
            format_metric(comparison.cost, budget.cost),
            f"{len(group.find_chosen(place))} of {len(group.results)}",
            *(_format(metric, group.summarise(place, metric)) for metric in comparison.metrics),
        ]
        for place, budget in enumerate(comparison.budgets)
        for group in comparison.groups
    ]
    header = [by, "budget", f"{comparison.cost} at most", "found", *comparison.metrics]
    return (
        "within a budget validation chooses, test reports; mean and standard deviation over the studies that "
        f"found a network\n{format_table(header, rows)}"
    )


def _format(metric: str, spread: Spread | None) -> str:
    """Return mean and deviation; one of nothing is told too, but for costs."""
    if spread is None:
        return ""
    if spread.std == 0 and metric not in COST_METRICS:
        return f"{format_metric(metric, spread.mean)} +- {format_metric(metric, 0.0)}"
    return format_with_spread(metric, spread.mean, spread.std, "+-")


def _format_bounds(bounds: tuple[float, float]) -> str:
    return " to ".join(format_metric("hypervolume", bound) for bound in bounds)


def _name_values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {format_metric(metric, value)}" for metric, value in values.items())
