"""Explanations find what was planted, learn from stopped trials, and refuse what they cannot predict."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dirprune.errors import StudyError
from dirprune.explain import Explanation, draw_beeswarm, explain, write_table
from dirprune.records.record import TrialRecord

FULL, RUNG = 6000, 1000


def make_trials(
    n_trials: int = 60, *, noise: float = 0.0, stop_below: int = 0, seed: int = 0
) -> list[TrialRecord]:
    """Plant: conv2's width and the method taylor help, everything gains from training, lr does nothing.

    Trials that keep fewer than `stop_below` channels of conv2 are stopped at the rung.
    """
    rng = np.random.default_rng(seed)
    records = []
    for number in range(n_trials):
        conv1, conv2 = (int(width) for width in rng.integers(1, 21, size=2))
        method = str(rng.choice(["taylor", "magnitude"]))
        options = {"fine_tuning.lr": float(rng.uniform(0.001, 0.01))}
        if method == "magnitude":
            options["magnitude.norm"] = str(rng.choice(["l1", "l2"]))  # type: ignore[assignment]
        reached = 0.5 + 0.01 * conv2 + 0.06 * (method == "taylor") + noise * float(rng.normal())
        curve = tuple(
            (images, {"val_accuracy": reached + 0.05 * images / FULL, "macs": 100.0 * conv1 + conv2})
            for images in ((RUNG,) if conv2 < stop_below else (RUNG, FULL))
        )
        records.append(
            TrialRecord(
                number=number,
                state="PRUNED" if conv2 < stop_below else "COMPLETE",
                source="sampler",
                architecture={"conv1": conv1, "conv2": conv2},
                method=method,
                options=options,
                metrics=curve[-1][1],
                curve=curve,
            )
        )
    return records


def find(explanation: Explanation) -> dict[str, float]:
    """Return the strength of every choice."""
    return {choice.name: choice.strength for choice in explanation.choices}


def test_what_was_planted_comes_first_and_with_its_direction() -> None:
    accuracy, macs = explain(make_trials(), ["val_accuracy", "macs"])
    assert [choice.name for choice in accuracy.choices[:2]] == ["conv2", "method"]
    strength = find(accuracy)
    assert strength["conv2"] > 5 * strength["conv1"]
    assert strength["conv2"] > 5 * strength["fine_tuning.lr"]
    conv2, method = accuracy.choices[:2]
    assert conv2.effect.startswith("rises")
    assert method.effect.startswith("taylor +")
    assert accuracy.r2 > 0.8
    assert accuracy.is_trusted(0.3)
    assert macs.choices[0].name == "conv1"


def test_a_cost_is_explained_by_the_architecture_alone() -> None:
    (macs,) = explain(make_trials(), ["macs"])
    assert set(find(macs)) == {"conv1", "conv2"}


def test_attributions_add_up_to_each_prediction_at_full_resource() -> None:
    records = make_trials(40)
    (explanation,) = explain(records, ["val_accuracy"])
    predicted = explanation.base + sum(choice.attributions for choice in explanation.choices)
    final = [record.metrics["val_accuracy"] for record in records]
    assert np.abs(predicted - final).mean() < 0.02


def test_what_moves_a_rung_alone_moves_nothing_at_full_resource() -> None:
    rng = np.random.default_rng(2)
    records = []
    for number in range(80):
        wide, late = (int(width) for width in rng.integers(1, 21, size=2))
        final = 0.9 + 0.001 * late
        curve = tuple(
            (images, {"val_accuracy": final if images == FULL else 0.2 + 0.03 * wide})
            for images in (0, RUNG, FULL)
        )
        records.append(
            TrialRecord(
                number=number,
                state="COMPLETE",
                source="sampler",
                architecture={"wide": wide, "late": late},
                method="taylor",
                options={},
                metrics=curve[-1][1],
                curve=curve,
            )
        )
    (explanation,) = explain(records, ["val_accuracy"])
    strength = find(explanation)
    assert strength["late"] > 10 * strength["wide"]
    predicted = explanation.base + sum(choice.attributions for choice in explanation.choices)
    final = [record.metrics["val_accuracy"] for record in records]
    assert np.abs(predicted - final).max() < 0.005


def test_what_is_the_same_for_all_is_not_explained() -> None:
    records = [
        replace(record, curve=tuple((images, {"macs": 5.0}) for images, _ in record.curve))
        for record in make_trials(20)
    ]
    records = [replace(record, metrics=record.curve[-1][1]) for record in records]
    (explanation,) = explain(records, ["macs"])
    assert not explanation.is_trusted(-1.0)


def test_stopped_trials_teach_what_survivors_hide() -> None:
    records = make_trials(120, stop_below=15)
    survivors = [record for record in records if record.state == "COMPLETE"]
    (of_all,) = explain(records, ["val_accuracy"])
    (of_survivors,) = explain(survivors, ["val_accuracy"])
    assert len(of_all.trials) == 120
    assert find(of_all)["conv2"] > 2 * find(of_survivors)["conv2"]


def test_noise_is_not_to_be_trusted() -> None:
    records = [
        replace(record, curve=tuple((images, {"val_accuracy": float(value)}) for images, _ in record.curve))
        for record, value in zip(make_trials(40), np.random.default_rng(1).random(40), strict=True)
    ]
    records = [replace(record, metrics=record.curve[-1][1]) for record in records]
    (explanation,) = explain(records, ["val_accuracy"])
    assert not explanation.is_trusted(0.3)


def test_seed_reproduces_and_matters() -> None:
    records = make_trials(30, noise=0.02)
    first, again, other = (explain(records, ["val_accuracy"], seed)[0] for seed in (0, 0, 1))
    assert find(first) == find(again)
    assert find(first) != find(other)


def test_too_few_finished_trials_are_refused() -> None:
    with pytest.raises(StudyError, match=r"at least 10 finished trials .* got 9"):
        explain(make_trials(9), ["val_accuracy"])


def test_table_and_picture_are_written(tmp_path: Path) -> None:
    explanations = explain(make_trials(30), ["val_accuracy", "macs"])
    write_table(tmp_path / "table.csv", explanations)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["objective"] for row in rows} == {"val_accuracy", "macs"}
    assert rows[0]["choice"] == "conv2"
    assert float(rows[0]["mean_abs_shap"]) > 0
    draw_beeswarm(tmp_path / "picture.png", explanations[0])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
