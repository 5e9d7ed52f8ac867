"""Pictures: what the scene holds, and that each file is whole whatever the study is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirprune.records.front import mark_front
from dirprune.records.pictures import MAX_ROWS, write_architectures_png, write_front_png
from dirprune.records.scene import Axis, make_scene
from dirprune.study.objectives import Objective
from tests.records.example_study import FINALISTS, N_CHANNELS, OBJECTIVES, make_study, make_trial

LOSS = Objective("val_loss", "minimize")
RECORDS = mark_front(make_study(), OBJECTIVES)


def test_scene_shows_each_finished_and_stopped_trial_once() -> None:
    failed = make_trial(60, "sampler", 0.5, 0.9, state="FAIL")
    running = make_trial(61, "sampler", 0.5, 0.9, state="RUNNING")
    scene = make_scene([*RECORDS, failed, running], OBJECTIVES)
    assert sorted(point.record.number for point in scene.points) == list(range(60))
    roles = {point.record.number: point.role for point in scene.points}
    assert roles[0] == "front"
    assert roles[3] == "stopped"
    assert scene.points[-1].role == "front"


def test_colours_are_those_of_methods_and_the_dense_network_is_none_of_them() -> None:
    assert list(make_scene(RECORDS, OBJECTIVES).named_colours()) == ["dirichlet", "magnitude", "taylor"]
    by_source = make_scene(
        [make_trial(0, "dense", 1.0, 0.99), make_trial(3, "sampler", 0.5, 0.9)], OBJECTIVES
    )
    assert list(by_source.named_colours()) == ["sampler", "dense"]


def test_step_line_joins_the_front_and_holds_its_height_until_the_next_point() -> None:
    scene = make_scene(RECORDS, OBJECTIVES)
    costs = sorted(record.metrics["macs"] for record in RECORDS if record.is_front)
    assert [x for x, _ in scene.line] == costs
    assert scene.is_held
    assert not make_scene(RECORDS, [OBJECTIVES[1], OBJECTIVES[0]]).is_held


def test_best_so_far_is_that_of_trials_that_may_be_on_the_front() -> None:
    large = make_trial(0, "dense", 1.0, 0.8, is_acceptable=False)
    trials = [large, make_trial(1, "sampler", 0.5, 0.6), make_trial(2, "sampler", 0.5, 0.7)]
    assert make_scene(trials, OBJECTIVES[:1]).line == ((1, 0.6), (2, 0.7))


def test_accuracy_near_one_is_placed_by_its_error_and_costs_by_magnitude() -> None:
    scene = make_scene(RECORDS, OBJECTIVES)
    assert scene.up.scale == "log-error"
    assert scene.across.scale == "log"
    assert scene.up.place(0.99) == pytest.approx(0.01)
    low = [make_trial(0, "sampler", 0.5, 0.6), make_trial(1, "sampler", 0.6, 0.7)]
    assert make_scene(low, OBJECTIVES).up.scale == "linear"
    assert make_scene(low, OBJECTIVES).across.scale == "linear"


def test_accuracy_of_one_has_a_place_and_a_tick() -> None:
    records = [make_trial(0, "dense", 1.0, 1.0), make_trial(1, "sampler", 0.5, 0.98)]
    axis = make_scene(records, OBJECTIVES).up
    assert axis.place(1.0) == pytest.approx(0.01)
    assert axis.ticks([1.0, 0.98])[axis.place(1.0)] == "1"
    assert "0.98" in axis.ticks([1.0, 0.98]).values()


def test_ticks_lie_where_their_text_says() -> None:
    axis = Axis("val_accuracy", "", "log-error", floor=1e-4)
    for place, text in axis.ticks([0.5, 0.99]).items():
        assert axis.place(float(text)) == pytest.approx(place)


def test_one_objective_shows_the_best_so_far_and_three_colour_the_points() -> None:
    best = [y for _, y in make_scene(RECORDS, OBJECTIVES[:1]).line]
    assert best == sorted(best, reverse=True)  # errors
    three = make_scene(RECORDS, (*OBJECTIVES, LOSS))
    assert three.line == ()
    assert three.colour == LOSS
    low, high = three.colour_limits()
    finished = [r.metrics["val_loss"] for r in RECORDS if r.state == "COMPLETE"]
    assert (low, high) == (min(finished), max(finished))


def test_final_front_stands_before_the_faded_front_of_the_search() -> None:
    before, scene = make_scene(RECORDS, OBJECTIVES), make_scene(RECORDS, OBJECTIVES, FINALISTS)
    assert {p.role for p in scene.points} == {"stopped", "dominated", "searched", "finalist", "final"}
    assert [p.role for p in scene.points[-2:]] == ["finalist", "final"]
    searched = [point.record.number for point in scene.points if point.role == "searched"]
    assert searched == [point.record.number for point in before.points if point.role == "front"]
    assert scene.searched_line == before.line
    assert scene.line == ((FINALISTS[0].record.metrics["macs"], pytest.approx(0.02)),)


def test_bars_reach_one_standard_deviation_to_both_sides() -> None:
    point = make_scene(RECORDS, OBJECTIVES, FINALISTS).points[-1]
    down, up = point.y_bar  # coordinates are errors: 0.020, from 0.016 to 0.024
    assert (point.y - down, point.y + up) == (pytest.approx(0.016), pytest.approx(0.024))
    assert point.x_bar == (0.0, 0.0)
    linear, log = Axis("x", ""), Axis("x", "", "log")
    assert linear.bar(2.0, 3.0) == (3.0, 3.0)
    assert log.bar(2.0, 3.0) == (pytest.approx(1.98), 3.0)  # a logarithm has no place at or below 0


@pytest.mark.parametrize("objectives", [OBJECTIVES[:1], (*OBJECTIVES, LOSS)], ids=["one", "three"])
def test_finalists_are_drawn_with_any_number_of_objectives(tmp_path: Path, objectives: tuple) -> None:
    write_front_png(tmp_path / "front.png", RECORDS, objectives, "x", FINALISTS)


@pytest.mark.parametrize(
    ("objectives", "records"),
    [((*OBJECTIVES, LOSS), RECORDS), (OBJECTIVES[:1], RECORDS[:1]), (OBJECTIVES, [])],
    ids=["three objectives", "one objective, one trial", "no trial"],
)
def test_pictures_of_any_number_of_objectives_and_trials_are_written(
    tmp_path: Path, records: list, objectives: tuple[Objective, ...]
) -> None:
    write_front_png(tmp_path / "front.png", records, objectives)
    write_architectures_png(tmp_path / "architectures.png", records, N_CHANNELS)
    for name in ("front.png", "architectures.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["architectures.png", "front.png"]


def test_markup_and_mathematics_in_names_are_drawn_as_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>$x^2$<b>"
    trial = make_trial(0, nasty, 0.5, 0.9, method=nasty)
    object.__setattr__(trial, "architecture", {nasty: 3})
    write_front_png(tmp_path / "front.png", [trial.on_front(True)], OBJECTIVES, title=nasty)
    write_architectures_png(tmp_path / "architectures.png", [trial.on_front(True)], {nasty: 5}, title=nasty)


def test_architectures_of_a_network_with_many_groups_are_drawn(tmp_path: Path) -> None:
    groups = {f"layer{n}": 64 for n in range(60)}
    trial = make_trial(0, "sampler", 0.5, 0.9)
    object.__setattr__(trial, "architecture", dict.fromkeys(groups, 32))
    write_architectures_png(tmp_path / "architectures.png", [trial.on_front(True)], groups)
    assert (tmp_path / "architectures.png").stat().st_size > 1000


def test_picture_of_a_long_front_shows_its_ends_and_says_how_many(tmp_path: Path) -> None:
    front = [
        make_trial(n, "sampler", 0.05 + n / 200, 0.5 + n / 400).on_front(True) for n in range(MAX_ROWS + 20)
    ]
    long, short = tmp_path / "long.png", tmp_path / "short.png"
    write_architectures_png(long, front, N_CHANNELS)
    write_architectures_png(short, front[:MAX_ROWS], N_CHANNELS)
    heights = [int(path.read_bytes()[20:24].hex(), 16) for path in (long, short)]
    assert heights[0] == heights[1]
