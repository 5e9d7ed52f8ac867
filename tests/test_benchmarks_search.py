"""The comparison of searches at its smallest: it runs, goes on, counts what it spends, and reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts, imported as the command line does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import search
    import search_clock
    import search_table

    return {module.__name__: module for module in (search, search_clock, search_table)}


@pytest.fixture(autouse=True)
def _forget_scripts():
    yield
    for name in [name for name in sys.modules if name == "search" or name.startswith("search_")]:
        del sys.modules[name]


def run(main, output: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--output", str(output), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_searches_run_once_and_are_reported(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    main = modules["search"].main
    sides = "random;tpe;nsga2;ours;ours halving=stopping reduction_factor=3 architectures=per-group"
    choice = ("run", "--sides", sides, "--seeds", "0:1", "--budget", "150000")
    run(main, tmp_path, *choice)
    text = (tmp_path / "search.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["key"]["side"] for row in rows] == sides.split(";")
    assert all(0 < row["values"]["points"][-1][2] <= 1 for row in rows)
    run(main, tmp_path, *choice)
    assert (tmp_path / "search.jsonl").read_text() == text

    lines = run(main, tmp_path, "report").splitlines()
    assert lines[0] == "2 workers, a budget of 150,000 images"
    assert next(line for line in lines if line.startswith("| tpe |")).split("|")[3].strip() == "1"
    assert (tmp_path / "search-2.png").stat().st_size > 1000


def test_unknown_sides_and_options_are_refused(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    for side in ("tpa", "ours halving"):
        result = CliRunner().invoke(
            modules["search"].main, ["--output", str(tmp_path), "run", "--sides", side]
        )
        assert result.exit_code == 2
        assert side.split()[-1] in result.output


def test_the_grid_is_what_the_cost_model_says(modules: dict[str, ModuleType]) -> None:
    grid = modules["search_table"].load_table("lenet5")
    for place in ((0, 0, 0, 0), (4, 4, 4, 4), (1, 2, 3, 0)):
        assert grid.costs.costs(grid.architecture(place)).macs == grid.macs[place]
        assert grid.nearest(grid.architecture(place)) == place
    names = dict(zip(grid.names, (5, 14, 36, 25), strict=True))
    assert grid.nearest(names) == (1, 2, 2, 4)
    assert grid.measure_true(np.ndindex(5, 5, 5, 5)) == grid.best
    place = (2, 2, 2, 2)
    width = 1 - grid.macs[place] / 498_750
    assert grid.measure_true([place]) == pytest.approx(width * (grid.accuracies[place][-1] - 0.1))


@pytest.mark.slow
def test_a_sample_is_modelled_and_searched(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    table = modules["search_table"].load_table("resnet20")
    for place in ((0,) * 9, (4,) * 9, (1, 2, 3, 4, 0, 1, 2, 3, 4)):
        assert table.costs.costs(table.architecture(place)).macs == table.macs[place]
    near = [table.accuracies[tuple(place)] for place in table.places]
    assert (np.abs(near - (1 - table.errors)).mean(0) < 2 * table.deviations + 0.01).all()
    place = (2,) * 9
    told = [table.observe(place, 3, np.random.default_rng(seed)) for seed in range(200)]
    assert np.mean(told) == pytest.approx(table.accuracies[place][-1], abs=3 * table.deviations[-1] / 14)
    assert np.std(told) == pytest.approx(table.deviations[-1], rel=0.2)
    assert table.measure_true([place]) < table.best < 1

    sides = "random;ours halving=none;ours architectures=ranked;ours architectures=budgeted halving=promoting"
    run(modules["search"].main, tmp_path, "run", "--table", "resnet20", "--sides", sides, "--seeds", "0:1",
        "--budget", "150000")  # fmt: skip
    lines = run(modules["search"].main, tmp_path, "report", "--table", "resnet20").splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ours")] == sides.split(";")[1:]
    assert run(modules["search"].main, tmp_path, "report") == ""  # of LeNet-5 nothing was run


@pytest.mark.slow
def test_the_model_of_a_sample_orders_what_it_has_not_seen(modules: dict[str, ModuleType]) -> None:
    from scipy.stats import spearmanr
    from search_surrogate import model

    table = modules["search_table"].load_table("resnet20")
    even, odd = slice(None, None, 2), slice(1, None, 2)
    predicted = model(table.places[even], table.errors[even, -1:], table.places[odd])
    assert spearmanr(predicted[:, 0], table.errors[odd, -1]).statistic > 0.9


def test_the_clock_charges_for_what_a_search_does(modules: dict[str, ModuleType]) -> None:
    clock = modules["search_clock"]
    grid = modules["search_table"].load_table("lenet5")

    class Scripted(clock.Side):
        """The first trial pauses and goes on last, the second ends at rung 0, the third runs through."""

        rungs = (0, 1)

        def __init__(self) -> None:
            self.jobs = [clock.Job(0, (0, 0, 0, 0)), clock.Job(1, (1, 1, 1, 1)), clock.Job(2, (2, 2, 2, 2))]
            self.jobs.append(self.jobs[0])
            self.heard = []

        def next(self):
            return self.jobs.pop(0) if self.jobs else None

        def report(self, job, epochs, accuracy):
            self.heard.append((job.number, epochs))
            return job.number == 2 or (job.number, epochs) == (0, 1)

        def complete(self, job, accuracy):
            self.heard.append((job.number, 3))

    side = Scripted()
    trace = clock.simulate(side, grid, 1, 1e9, seed=0)
    assert side.heard == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 3), (0, 1), (0, 3)]
    screened = 5_000 / 3 + 3_000 / 3
    trained = 12_000 + 2 * 3_000 / 3
    assert [point[:2] for point in trace.points] == [
        pytest.approx([3 * screened + trained, 12_000]),
        pytest.approx([3 * screened + 2 * trained, 24_000]),
    ]
    assert trace.counts == {"started": 3, "reached 0": 3, "reached 1": 2, "reached 3": 2}

    half = clock.simulate(Scripted(), grid, 1, 3 * screened + trained, seed=0)
    assert len(half.points) == 1
