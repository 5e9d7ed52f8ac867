"""The page's fronts: those that the study itself has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dirprune.page.files import read_asset
from dirprune.page.single import join_modules
from dirprune.records.front import find_undominated, mark_front
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective
from tests.browser import open_browser
from tests.records.example_study import LATENCY_OBJECTIVES, OBJECTIVES, make_timed

MAIN = """import { findFront, findUndominated } from "./front.js";
window.page = { findFront, findUndominated };
"""
FIND = """([study, axes]) => {
  const trials = study.map(([number, metrics]) => ({ number, metrics, study: "one" }));
  const marginOf = (trial, metric) => axes.find((axis) => axis.metric === metric).margin;
  const numbers = (found) => found.map(({ number }) => number).sort((a, b) => a - b);
  return [numbers(page.findFront(trials, axes, marginOf)), numbers(page.findUndominated(trials, axes))];
}"""
Find = Callable[[list[TrialRecord], tuple[Objective, ...]], tuple[list[int], list[int]]]


@pytest.fixture(scope="module")
def find() -> Iterator[Find]:
    """Return a function that gives the page's front of trials, and those whose models are kept."""
    with open_browser() as browser:
        page = browser.new_page()
        script = join_modules("main.js", lambda name: MAIN if name == "main.js" else read_asset(name))
        page.set_content(f'<script type="module">{script}</script>')
        page.wait_for_function("window.page !== undefined")

        def find(
            records: list[TrialRecord], objectives: tuple[Objective, ...]
        ) -> tuple[list[int], list[int]]:
            study = [[record.number, dict(record.metrics)] for record in records]
            axes = [
                {"metric": one.metric, "isMaximized": one.is_maximized, "margin": one.margin}
                for one in objectives
            ]
            front, undominated = page.evaluate(FIND, [study, axes])
            return front, undominated

        yield find


def test_values_within_the_error_of_latencies_are_equal(find: Find) -> None:
    records = [make_timed(0, 0.95, 10.0), make_timed(1, 0.94, 8.5), make_timed(2, 0.93, 8.0)]
    assert find(records, LATENCY_OBJECTIVES) == ([0, 2], [0, 1, 2])


@pytest.mark.parametrize("objectives", [LATENCY_OBJECTIVES, OBJECTIVES], ids=["with an error", "exact"])
def test_fronts_are_those_of_the_study(find: Find, objectives: tuple[Objective, ...]) -> None:
    rng = np.random.default_rng(0)
    n_thinned = 0
    for _ in range(200):
        halves = rng.integers(4, 40, 30)  # of a ms; few values, so that some trials have the same
        accuracies = (halves + rng.integers(0, 8, 30)) / 48
        values = zip(accuracies.tolist(), (halves / 2).tolist(), strict=True)
        records = [make_timed(number, *pair) for number, pair in enumerate(values)]
        front, undominated = find(records, objectives)
        assert front == [record.number for record in mark_front(records, objectives) if record.is_front]
        assert undominated == sorted(find_undominated(records, objectives))
        n_thinned += len(front) < len(undominated)
    assert (n_thinned > 100) == (objectives is LATENCY_OBJECTIVES)
