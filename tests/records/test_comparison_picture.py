"""The picture of a comparison: what is drawn where, in which colour, and how it is explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dirprune.records.appearance import COLOURS, label_of
from dirprune.records.comparison import compare
from dirprune.records.comparison_picture import write_comparison_png
from dirprune.records.figures import save_figure
from tests.records.compared_studies import make_compared, make_other

Figures = list[Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """Keep the figures that are written."""
    figures: Figures = []

    def save(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save_figure(figure, path)

    monkeypatch.setattr("dirprune.records.comparison_picture.save_figure", save)
    return figures


def test_picture_has_each_studys_front_in_its_groups_colour_the_dense_networks_and_budgets(
    drawn: Figures, tmp_path: Path
) -> None:
    studies = [
        make_compared("a", seed=0),
        make_compared("b", [(0.9, 400.0)], seed=1),
        make_compared("c", [(0.97, 100.0)], methods=("random",)),
    ]
    write_comparison_png(tmp_path / "fronts.png", compare(studies))
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    *fronts, dense = [[pytest.approx(point) for point in c.get_offsets().tolist()] for c in axes.collections]
    assert fronts == [  # errors, by cost
        [[250.0, 0.2], [500.0, 0.1], [1000.0, 0.01]],
        [[400.0, 0.1], [1000.0, 0.01]],
        [[100.0, 0.03], [1000.0, 0.01]],
    ]
    assert dense == [[1000.0, 0.01]]  # all have the same
    steps, budgets = axes.lines[:3], axes.lines[3:]
    assert [list(line.get_xdata()) for line in steps] == [
        [250.0, 500.0, 1000.0],
        [400.0, 1000.0],
        [100.0, 1000.0],
    ]
    assert {line.get_drawstyle() for line in steps} == {"steps-post"}
    assert [line.get_color() for line in steps] == [COLOURS[0], COLOURS[0], COLOURS[1]]
    assert [line.get_xdata()[0] for line in budgets] == [750.0, 500.0, 250.0]
    assert (axes.get_xscale(), axes.get_yscale(), axes.yaxis_inverted()) == ("log", "log", True)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        label_of("macs"),
        f"{label_of('val_accuracy')} (log scale of the error)",
    )
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "magnitude (2 studies)",
        "random",
        "dense",
        "budgets: 750, 500, 250",
    ]


def test_picture_names_a_study_without_a_front_too(drawn: Figures, tmp_path: Path) -> None:
    studies = [make_compared("a$"), replace(make_compared("b", methods=("random",)), records=[])]
    write_comparison_png(tmp_path / "fronts.png", compare(studies, by="study"))
    (axes,) = drawn[0].axes
    assert [len(c.get_offsets()) for c in axes.collections] == [3, 1]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][:2] == [r"a\$", "b"]


def test_picture_of_three_objectives_has_no_steps(drawn: Figures, tmp_path: Path) -> None:
    objectives = (("val_accuracy", "maximize"), ("parameters", "minimize"), ("macs", "minimize"))
    rows = ((0.9, 50.0, 500.0), (0.8, 80.0, 250.0))
    studies = [make_other(label, objectives, (0.5, 100.0, 1000.0), *rows) for label in ("a", "b")]
    write_comparison_png(tmp_path / "fronts.png", compare(studies, shares=(0.9, 0.6)))
    (axes,) = drawn[0].axes
    assert [sorted(map(tuple, c.get_offsets().tolist())) for c in axes.collections] == [
        [(50.0, 0.9), (80.0, 0.8)]
    ] * 2
    assert [set(line.get_xdata()) for line in axes.lines] == [{90.0}, {60.0}]


def test_steps_go_by_the_cost_that_is_shown(drawn: Figures, tmp_path: Path) -> None:
    objectives = (("val_accuracy", "maximize"), ("parameters", "minimize"))
    rows = ((0.8, 80.0), (0.6, 20.0), (0.7, 50.0))
    studies = [make_other(label, objectives, (0.5, 100.0), *rows) for label in ("a", "b")]
    write_comparison_png(tmp_path / "fronts.png", compare(studies))
    assert list(drawn[0].axes[0].lines[0].get_xdata()) == [20.0, 50.0, 80.0]
