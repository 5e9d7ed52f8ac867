"""What MLflow should hold of a trial: the state table, names and limits."""

from __future__ import annotations

import pytest

from dirprune.tracking import names
from dirprune.tracking.views import view_progress, view_trial
from tests.records.example_study import make_trial


@pytest.mark.parametrize(
    ("state", "reason", "status", "tag", "text"),
    [
        ("COMPLETE", None, "FINISHED", None, None),
        ("PRUNED", "stopped at 1200 images", "KILLED", names.STOPPED_AT, "1200"),
        ("FAIL", "ValueError: no", "FAILED", names.ERROR, "ValueError: no"),
        ("FAIL", None, "FAILED", names.ERROR, "unknown"),
        ("FAIL", "abandoned", "KILLED", names.ERROR, "abandoned"),
        ("RUNNING", None, "RUNNING", None, None),
    ],
)
def test_states_are_those_of_the_table(
    state: str, reason: str | None, status: str, tag: str | None, text: str | None
) -> None:
    view = view_trial(make_trial(3, "sampler", 0.5, 0.9, state=state, reason=reason), "lenet", "id")
    assert view.status == status
    special = {name: value for name, value in view.tags.items() if name in (names.STOPPED_AT, names.ERROR)}
    assert special == ({tag: text} if tag else {})


def test_what_the_state_does_not_say_is_in_tags() -> None:
    paused = make_trial(3, "sampler", 0.5, 0.9, state="RUNNING", is_paused=True)
    assert view_trial(paused, "lenet", "id").tags[names.PAUSED] == "true"
    fine = view_trial(make_trial(3, "sampler", 0.5, 0.9), "lenet", "id").tags
    assert fine[names.PAUSED] == "false"
    assert names.NOT_ACCEPTABLE not in fine
    poor = make_trial(3, "sampler", 0.5, 0.9, is_acceptable=False, reason="too low")
    assert view_trial(poor, "lenet", "id").tags[names.NOT_ACCEPTABLE] == "too low"


def test_curve_has_images_as_steps_and_final_values_come_after_it() -> None:
    record = make_trial(3, "sampler", 0.5, 0.9)
    view = view_trial(record, "lenet", "id")
    accuracies = [(p.step, p.value, p.time_ms) for p in view.points if p.name == "val_accuracy"]
    assert [step for step, _, _ in accuracies] == [0, 600, 1200]
    assert accuracies[-1][1] == record.metrics["val_accuracy"]
    tested = [p for p in view.points if p.name == "test_accuracy"]
    assert [(p.step, p.value) for p in tested] == [(1200, record.metrics["test_accuracy"])]
    assert tested[0].time_ms == accuracies[-1][2] + 1
    assert [(p.step, p.value) for p in view.points if p.name == "macs"] == [(0, record.metrics["macs"])]


def test_running_trial_has_no_final_values_and_a_better_final_value_is_the_last() -> None:
    running = view_trial(make_trial(3, "sampler", 0.5, 0.9, state="RUNNING"), "lenet", "id")
    assert not [p for p in running.points if p.name in ("test_accuracy", "wall_time_s")]
    restored = make_trial(
        3, "sampler", 0.5, 0.9, curve=((0, {"val_accuracy": 0.8}), (9, {"val_accuracy": 0.7}))
    )
    points = [p for p in view_trial(restored, "lenet", "id").points if p.name == "val_accuracy"]
    assert [(p.step, p.value) for p in sorted(points, key=lambda p: (p.step, p.time_ms))][-1] == (9, 0.9)


def test_names_and_texts_stay_within_the_limits_of_mlflow() -> None:
    record = make_trial(
        3,
        "sampler",
        0.5,
        0.9,
        state="FAIL",
        reason="x" * 10_000,
        options={"a(b)": "y" * 10_000, "n": "z" * 5},
        metrics={"val_a%b": 1.0},
    )
    view = view_trial(record, "lenet", "id")
    assert len(view.tags[names.ERROR]) == names.MAX_TAG
    assert len(view.parameters["a_b_"]) == names.MAX_PARAMETER
    assert view.parameters["a_b_"].endswith("...")
    assert "val_a_b" in {p.name for p in view.points}
    assert names.clean_name("/../x") == "x"
    assert len(names.clean_name("n" * 300)) == names.MAX_NAME


def test_progress_counts_by_the_number_of_finished_trials() -> None:
    points = view_progress(0.5, 3, {"COMPLETE": 4, "PRUNED": 2, "RUNNING": 1, "WAITING": 9}, 17)
    assert {(p.name, p.value) for p in points} == {
        ("hypervolume", 0.5),
        ("front_size", 3.0),
        ("n_complete", 4.0),
        ("n_stopped", 2.0),
        ("n_failed", 0.0),
        ("n_running", 1.0),
        ("n_paused", 0.0),
    }
    assert {p.step for p in points} == {4}
