"""The fronts of compared studies in one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dirprune.records.appearance import COLOURS, DENSE_COLOUR
from dirprune.records.comparison import Comparison, StudyResult
from dirprune.records.figures import as_literal, dress_axis_, make_axes, save_figure
from dirprune.records.formatting import format_metric
from dirprune.records.front import mark_front, sort_front
from dirprune.records.pictures import SYMBOLS
from dirprune.records.record import TrialRecord
from dirprune.records.scene import Scene, make_scene

BUDGET_COLOUR = "#999999"


def write_comparison_png(path: Path, comparison: Comparison, title: str = "Pareto fronts") -> None:
    """Draw the front of each study in its group's colour, the dense networks, and budgets as lines.

    Args:
        path: File to write.
        comparison: Of studies with two objectives or more; the first two are shown.
        title: Shown as text.
    """
    objectives = comparison.objectives
    results = [result for group in comparison.groups for result in group.results]
    fronts = {result.study.label: _find_front(result, comparison) for result in results}
    dense = [r for result in results for r in result.study.records if _is_dense(r)]
    scene = make_scene([*dense, *(record for front in fronts.values() for record in front)], objectives)
    figure, axes = make_axes(9.0, 5.6)
    colours = {g.name: COLOURS[place % len(COLOURS)] for place, g in enumerate(comparison.groups)}
    for group in comparison.groups:
        for result in group.results:
            _draw_front_(axes, scene, fronts[result.study.label], colours[group.name], len(objectives) == 2)
    for place in sorted({_place(scene, record) for record in dense}):
        axes.scatter(*place, s=140.0, marker=SYMBOLS["dense"], color=DENSE_COLOUR, zorder=5)
    if scene.across.metric == comparison.cost:
        for budget in comparison.budgets:
            axes.axvline(budget.cost, color=BUDGET_COLOUR, linewidth=0.9, linestyle=":", zorder=1)
    dress_axis_(axes.xaxis, axes, "x", scene.across, scene)
    dress_axis_(axes.yaxis, axes, "y", scene.up, scene)
    axes.set_title(as_literal(title), loc="left", fontsize=11, fontweight="bold")
    handles = _legend(comparison, colours, has_budgets=scene.across.metric == comparison.cost)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8.5)
    save_figure(figure, path)


def _find_front(result: StudyResult, comparison: Comparison) -> list[TrialRecord]:
    candidates = result.study.find_candidates(comparison.floor)
    return sort_front(mark_front(candidates, comparison.objectives))


def _is_dense(record: TrialRecord) -> bool:
    return record.source == "dense" and record.state == "COMPLETE"


def _place(scene: Scene, record: TrialRecord) -> tuple[float, float]:
    return (
        scene.across.place(scene.across.value(record)),
        scene.up.place(scene.up.value(record)),
    )


def _draw_front_(axes: Axes, scene: Scene, front: list[TrialRecord], colour: str, has_line: bool) -> None:
    """Draw one study's front: small points and, where two objectives make it a line, thin steps."""
    if not front:
        return
    across, up = zip(*sorted(_place(scene, record) for record in front), strict=True)
    axes.scatter(across, up, s=18.0, color=colour, alpha=0.9, linewidths=0.0, zorder=4)
    if has_line:
        style = "steps-post" if scene.is_held else "steps-pre"
        axes.plot(across, up, drawstyle=style, color=colour, linewidth=1.0, alpha=0.8, zorder=3)


def _legend(comparison: Comparison, colours: dict[str, str], has_budgets: bool) -> list[Line2D]:
    handles = []
    for group in comparison.groups:
        n = len(group.results)
        label = as_literal(group.name if n == 1 else f"{group.name} ({n} studies)")
        handles.append(Line2D([], [], color=colours[group.name], marker="o", markersize=4, label=label))
    handles.append(
        Line2D(
            [],
            [],
            linestyle="none",
            marker=SYMBOLS["dense"],
            color=DENSE_COLOUR,
            markersize=10,
            label="dense",
        )
    )
    if has_budgets:
        limits = ", ".join(format_metric(comparison.cost, budget.cost) for budget in comparison.budgets)
        label = f"budgets: {limits}"
        handles.append(
            Line2D([], [], color=BUDGET_COLOUR, linestyle=":", linewidth=0.9, label=as_literal(label))
        )
    return handles
