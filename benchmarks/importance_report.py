"""Tables in markdown of everything that was measured, and plots beside the rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import click
from importance_common import Setting, format_mean, format_spread
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

Row = dict[str, Any]
ALWAYS = ("random", "magnitude L1")  # drawn in colour: no claim counts but beside these


def format_markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines))


def unique(rows: Iterable[Row], name: str) -> list[Any]:
    """Return the different values of a column in the order in which they come."""
    return list(dict.fromkeys(row[name] for row in rows))


def pick(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def report_coalitions(rows: list[Row], output: Path) -> str:
    """Return a line for each group: milliseconds of a coalition both ways, their ratio, and the bound."""
    lines = []
    for row in rows:
        engine_ms = statistics.median(row["engine_ms"])
        lines.append(
            [
                f"{row['subject']} {row['group']} ({row['n_channels']})",
                str(row["n_images"]),
                str(row["engine"].get("engine", "")),
                format_spread(row["masked_ms"]),
                format_spread(row["engine_ms"], 3),
                format_spread(row["ratio"], 1),
                f"{1000 / engine_ms:,.0f}",
                f"{row['bound_ms']:.3f}",
                f"{row['bound_ms'] / engine_ms:.0%}",
                f"{row['preparing_s']:.2f}",
                f"{row['largest_difference']:.1e}",
                str(row["predictions_that_differ"]),
            ]
        )
    header = ["group (channels)", "images", "engine", "masked, ms", "engine, ms", "ratio", "coalitions/s"]
    header += ["bound, ms", "of the bound", "first 32, s", "largest difference", "other predictions"]
    return format_markdown(header, lines)


def report_reference(rows: list[Row], output: Path) -> str:
    """Return a table for each truth, with a line for each side: seconds, their ratio, order."""
    tables = []
    for n_images, long_run in sorted({(row["truth_images"], row["long_run"]) for row in rows}):
        found = pick(rows, truth_images=n_images, long_run=long_run)
        what = f"{n_images:,} images, runs of {long_run:,} coalitions where not all are evaluated"
        tables.append(
            f"Spearman with known values of the loss, and of accuracy ({what}):\n\n{_tabulate_sides(found)}"
        )
    return "\n\n".join(tables)


def _tabulate_sides(rows: list[Row]) -> str:
    reference = {row["seed"]: row["seconds"] for row in pick(rows, side="reference")}
    lines = []
    for side in unique(rows, "side"):
        found = pick(rows, side=side)
        ratios = [reference[row["seed"]] / row["seconds"] for row in found if row["seed"] in reference]
        lines.append(
            [side, format_spread([row["seconds"] for row in found]), format_spread(ratios or [0], 1)]
        )
        for value in ("loss", "accuracy"):
            spearman = [row["spearman"][value] for row in found]
            lines[-1] += [format_mean([each[group] for each in spearman], 2) for group in spearman[0]]
            lines[-1].append(format_mean([statistics.fmean(each.values()) for each in spearman], 2))
    columns = [*rows[0]["spearman"]["loss"], "mean"]
    header = ["side", "seconds", "ratio", *columns, *(f"{column} (accuracy)" for column in columns)]
    return format_markdown(header, lines)


def report_switches(rows: list[Row], output: Path) -> str:
    """Return a line for each network: seconds both ways, and accuracy after pruning."""
    lines = []
    for subject in unique(rows, "subject"):
        found = pick(rows, subject=subject)
        line = [subject, str(found[0]["n_groups"]), str(found[0]["steps"])]
        line += [format_spread([row[f"{side}_s"] for row in found]) for side in ("per_group", "joint")]
        line.append(format_spread([row["per_group_s"] / row["joint_s"] for row in found]))
        for side in ("per_group", "joint"):
            accuracies = [row[f"{side}_accuracy"] for row in found if f"{side}_accuracy" in row]
            line.append(format_mean(accuracies, 1, 100) if accuracies else "no trained weights")
        lines.append(line)
    header = ["network", "groups", "steps", "one by one, s", "jointly, s", "ratio"]
    return format_markdown([*header, "accuracy % one by one", "accuracy % jointly"], lines)


def report_errors(rows: list[Row], output: Path) -> str:
    """Return a table for each measure and group, methods by evaluations, and draw the rank correlations.

    Errors against another truth than the usual one are of a group of their own.
    """
    rows = [
        {**row, "group": f"{row['group']}, truth of {row['truth']:,} evaluations"} if "truth" in row else row
        for row in rows
    ]
    groups, methods = unique(rows, "group"), unique(rows, "method")
    parts = []
    for group, (measure, digits) in product(groups, (("spearman", 2), ("overlap", 2), ("rmse", 4))):
        of_group = pick(rows, group=group)
        budgets = sorted(unique(of_group, "evaluations"))
        lines = []
        for method in methods:
            found = [pick(of_group, method=method, evaluations=budget) for budget in budgets]
            cells = [format_mean([row[measure] for row in each], digits) for each in found]
            lines.append([method, *cells])
        title = f"{measure}, {group}, by evaluations"
        parts.append(f"{title}\n\n" + format_markdown(["method", *map(str, budgets)], lines))
    parts.append(_report_coverage(rows))
    figure = Figure(figsize=(3.6 * len(groups), 3.6), layout="constrained")
    for axes, group in zip(
        figure.subplots(1, len(groups), sharey=True, squeeze=False)[0], groups, strict=True
    ):
        for method in methods:
            found = pick(rows, group=group, method=method)
            budgets = sorted(unique(found, "evaluations"))
            means = [
                statistics.fmean(row["spearman"] for row in pick(found, evaluations=budget))
                for budget in budgets
            ]
            axes.plot(budgets, means, "o-", ms=3, label=method)
        axes.set(title=group, xscale="log", xlabel="evaluations")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("Spearman with exact values")
    handles = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=7)
    figure.savefig(output / "shapley-error.png", dpi=150)
    return "\n\n".join(parts)


def _report_coverage(rows: list[Row]) -> str:
    """Return a table of how many 95% intervals hold the true value, methods by groups and budgets."""
    told = [row for row in rows if row.get("covered") is not None]
    places = sorted({(row["group"], row["evaluations"]) for row in told})
    lines = []
    for method in unique(told, "method"):
        found = [pick(told, method=method, group=group, evaluations=budget) for group, budget in places]
        lines.append([method, *(format_mean([row["covered"] for row in each], 0, 100) for each in found)])
    header = ["method", *(f"{group}, {budget}" for group, budget in places)]
    return "% of true values inside their 95% intervals\n\n" + format_markdown(header, lines)


WHENS = ("before", "after", "reconstructed")
"""As pruned, after batch-norm recalibration, and after reconstruction instead."""


def report_pruning(rows: list[Row], output: Path) -> str:
    """Return a table for each kind of network, methods by sets of architectures; draw it as well."""
    parts = []
    for kind in dict.fromkeys(row["subject"].partition("-")[0] for row in rows):
        of_kind = [row for row in rows if row["subject"].partition("-")[0] == kind]
        subjects, sets = unique(of_kind, "subject"), unique(of_kind, "set")
        lines = []
        for variant in unique(of_kind, "variant"):
            of_variant = pick(of_kind, variant=variant)
            cells = [variant]
            for name in sets:
                cells += [format_mean(average(pick(of_variant, set=name), when), 1, 100) for when in WHENS]
            cells += [
                format_mean(average(pick(of_variant, subject=subject, set=sets[0]), "after"), 1, 100)
                for subject in (subjects if len(subjects) > 1 else ())
            ]
            lines.append(cells)
        lines.sort(key=lambda cells: -float(cells[2].partition(" ")[0] or 0))
        dense = [statistics.fmean(row["dense"] for row in pick(of_kind, subject=s)) for s in subjects]
        header = ["method", *(f"{name}, {when}" for name in sets for when in WHENS)]
        header += [f"{subject}, {sets[0]}, after" for subject in (subjects if len(subjects) > 1 else ())]
        shown = "accuracy in % as pruned, recalibrated, or reconstructed instead"
        title = f"{kind}: {shown}; dense {format_mean(dense, 2, 100)}"
        parts.append(f"{title}\n\n" + format_markdown(header, lines))
        _draw_pruning(of_kind, [line[0] for line in lines], sets, output / f"after-pruning-{kind}.png")
    return "\n\n".join(parts)


def average(rows: list[Row], what: str) -> list[float]:
    """Return the mean over architectures, once for each network and seed that was measured so."""
    rows = [row for row in rows if what in row]
    return [
        statistics.fmean(row[what] for row in pick(rows, subject=subject, seed=seed))
        for subject, seed in dict.fromkeys((row["subject"], row["seed"]) for row in rows)
    ]


def _draw_pruning(rows: list[Row], variants: list[str], sets: list[str], path: Path) -> None:
    """Draw a mark for each network and seed: hollow as pruned, filled recalibrated, a cross reconstructed."""
    figure = Figure(figsize=(max(6.5, 3.4 * len(sets)), 1 + 0.26 * len(variants)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
        for place, variant in enumerate(reversed(variants)):
            found = pick(rows, variant=variant, set=name)
            colour = "tab:red" if variant in ALWAYS else "tab:blue"
            for when, mark, face in zip(WHENS, "oox", ("none", colour, colour), strict=True):
                values = [100 * value for value in average(found, when)]
                axes.plot(values, [place] * len(values), mark, ms=5, mfc=face, mec=colour)
        axes.set(title=name, xlabel="test accuracy, %", yticks=range(len(variants)))
        axes.set_yticklabels(reversed(variants))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def report_fine_tuning(rows: list[Row], output: Path) -> str:
    """Return a table for each network: accuracy after fine-tuning, methods by architectures; draw it.

    Where methods have seen different numbers of images, their rows say how many.
    """
    parts = []
    if len({row["n_images"] for row in rows}) > 1:
        rows = [{**row, "variant": f"{row['variant']}, {row['n_images']:,} images"} for row in rows]
    for subject in unique(rows, "subject"):
        of_subject = pick(rows, subject=subject)
        architectures = unique(of_subject, "architecture")
        lines = []
        for variant, repair in dict.fromkeys((row["variant"], row["repair"]) for row in of_subject):
            found = pick(of_subject, variant=variant, repair=repair)
            cells = [f"{variant}, {repair}"]
            for when in ("before", "after"):
                values = [[row[when] for row in pick(found, architecture=text)] for text in architectures]
                cells += [format_mean(each, 2, 100) for each in values]
            lines.append(cells)
        header = [f"{text}, {when}" for when in ("before", "after") for text in architectures]
        _draw_fine_tuning(of_subject, architectures, output / f"after-fine-tuning-{subject}.png")
        title = f"{subject}, {of_subject[0]['n_steps']} steps"
        parts.append(f"{title}\n\n" + format_markdown(["method", *header], lines))
    return "\n\n".join(parts)


def _draw_fine_tuning(rows: list[Row], architectures: list[str], path: Path) -> None:
    """Draw errors before (hollow) and after (filled) fine-tuning, a mark for each seed."""
    variants = list(dict.fromkeys(f"{row['variant']}, {row['repair']}" for row in rows))
    width = max(6.5, 3.0 * len(architectures))
    figure = Figure(figsize=(width, 1.2 + 0.3 * len(variants)), layout="constrained")
    least = 100 * min(1 - row["after"] for row in rows)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick > least / 2.5]
    panels = figure.subplots(1, len(architectures), sharey=True, squeeze=False)[0]
    for axes, text in zip(panels, architectures, strict=True):
        for row in pick(rows, architecture=text):
            place = -variants.index(f"{row['variant']}, {row['repair']}")
            colour = "tab:red" if row["variant"].startswith(ALWAYS) else "tab:blue"
            for when, face in (("before", "none"), ("after", colour)):
                axes.plot(100 * (1 - row[when]), place, "o", ms=5, mfc=face, mec=colour)
        axes.set(xscale="log", xlabel="test error, %", yticks=range(0, -len(variants), -1))
        axes.set_title(fill(text.replace("-", " "), 24), fontsize=10)
        axes.set_yticklabels(variants)
        axes.set_xticks(ticks, map(str, ticks))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def report_forms(rows: list[Row], output: Path) -> str:
    """Return a table for each kind of network and number of images: widths and methods by shares of the MACs.

    A path that was measured again, as one that saves latency, counts as it was last.
    """
    parts = []
    last = {_name_place(row): row["architecture"] for row in rows}
    rows = [row for row in rows if row["architecture"] == last[_name_place(row)]]
    kinds = sorted({(row["subject"].partition("-")[0], row["n_images"]) for row in rows})
    for kind, n_images in kinds:
        of_kind = [row for row in pick(rows, n_images=n_images) if row["subject"].partition("-")[0] == kind]
        shares = sorted(unique(of_kind, "target"), reverse=True)
        lines = []
        for widths, variant in dict.fromkeys((row["widths"], row["variant"]) for row in of_kind):
            cells = [widths, variant]
            for share in shares:
                found = pick(of_kind, widths=widths, variant=variant, target=share)
                cells += [format_mean([row[when] for row in found], 1, 100) for when in WHENS[:2]]
            lines.append(cells)
        header = ["widths", "channels", *(f"{share:.0%}, {when}" for share in shares for when in WHENS[:2])]
        title = f"{kind}, {n_images} images, by share of the MACs"
        parts.append(f"{title}\n\n" + format_markdown(header, lines))
    return "\n\n".join(parts)


def _name_place(row: Row) -> tuple[Any, ...]:
    return row["subject"], row["n_images"], row["widths"], row["target"]


def report_planted(rows: list[Row], output: Path) -> str:
    """Return a line for each posterior and strength: the places of both pairs, over the networks."""
    groups = unique(rows, "group")
    lines = []
    for posterior, strength in product(unique(rows, "posterior"), unique(rows, "strength")):
        cells = [f"{strength:g}"]
        for group in groups:
            found = pick(rows, group=group, posterior=posterior, strength=strength)
            cells += [_format_places(found, "together", 1), _format_places(found, "substitutes", -1)]
        lines.append([posterior, *cells])
    header = ["posterior", "strength"]
    for group in groups:
        header += [f"{group} ({pick(rows, group=group)[0]['n_pairs']:,} pairs): together", "substitutes"]
    return format_markdown(header, lines)


def _format_places(rows: Sequence[Row], name: str, sign: int) -> str:
    """Return the places over the networks, and with how many of all seeds the sign is right."""
    if not rows:
        return ""
    places = ", ".join(f"{row['ranks'][name]:,}" for row in rows)
    excesses = [sign * excess for row in rows for excess in row["excess"][name]]
    return f"{places} ({sum(excess > 0 for excess in excesses)} of {len(excesses)})"


def report_seconds(rows: list[Row], output: Path) -> str:
    """Return a table for each axis, methods by places on it, and draw how seconds grow."""
    parts = []
    axes_names = unique(rows, "axis")
    growing = [name for name in axes_names if name != "network"]
    figure = Figure(figsize=(4.5 * max(1, len(growing)), 4), layout="constrained")
    panels = dict(zip(growing, figure.subplots(1, max(1, len(growing)), squeeze=False)[0], strict=False))
    for axis in axes_names:
        found = pick(rows, axis=axis)
        places = unique(found, "place")
        lines = []
        for variant in unique(found, "variant"):
            medians = {
                row["place"]: statistics.median(row["seconds"]) for row in pick(found, variant=variant)
            }
            lines.append([variant, *(f"{medians[p]:.2f}" if p in medians else "" for p in places)])
            if axis in panels:
                panels[axis].plot(list(medians), list(medians.values()), "o-", ms=3, label=variant)
        header = ["method", *(f"{axis} {place}" for place in places)]
        parts.append("seconds\n\n" + format_markdown(header, lines))
    for axis, panel in panels.items():
        panel.set(title=f"LeNet-5, {axis}", xscale="log", yscale="log", ylabel="seconds")
    if panels:
        figure.axes[-1].legend(fontsize=6)
    figure.savefig(output / "seconds.png", dpi=150)
    return "\n\n".join(parts)


REPORTS: dict[str, tuple[str, Callable[[list[Row], Path], str]]] = {
    "coalitions": ("Coalitions per second", report_coalitions),
    "reference-ranking": ("The reference's whole ranking of LeNet-5", report_reference),
    "joint-switches": ("All switches jointly against one training per group", report_switches),
    "shapley-error": ("Error of estimated Shapley values", report_errors),
    "after-pruning": ("Accuracy right after pruning", report_pruning),
    "after-fine-tuning": ("Accuracy after fine-tuning", report_fine_tuning),
    "greedy-forms": ("Greedy elimination in given widths, and along a path", report_forms),
    "planted-pairs": ("Where planted pairs are found", report_planted),
    "seconds": ("Seconds", report_seconds),
}

OF_A_DEVICE = ("coalitions", "seconds")
"""Tables of times: only those of the device that was asked for."""


@click.command
@click.pass_obj
def report(setting: Setting) -> None:
    """Print the tables of all rows that there are, and draw the plots beside them."""
    for name, (title, make) in REPORTS.items():
        rows = list(setting.rows(name))
        if name in OF_A_DEVICE:
            rows = pick(rows, device=setting.device)
        if rows:
            click.echo(f"### {title}\n\n{make(rows, setting.output)}\n")
