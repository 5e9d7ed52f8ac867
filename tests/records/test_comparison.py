"""Studies side by side, on records made by hand: each number here can be worked out without a computer."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dirprune.cli.compare import describe_pairing, format_groups
from dirprune.errors import ConfigurationError
from dirprune.records.comparability import find_warnings
from dirprune.records.comparison import ComparedStudy, Spread, choose_within, compare
from dirprune.records.comparison_tables import tabulate, write_comparison
from dirprune.records.front import find_member, mark_front, sort_front
from dirprune.study.objectives import Objective, read_objectives
from tests.records.compared_studies import make_compared, make_other
from tests.records.example_study import make_trial


def test_hypervolumes_begin_at_the_strictest_floor_for_all_and_costs_are_shares_of_the_dense_one() -> None:
    loose, strict = (
        make_compared("loose", floor=0.5),
        make_compared("strict", floor=0.75, methods=("random",)),
    )
    compared = compare([loose, strict])
    assert compared.reference_point == {"val_accuracy": 0.75, "macs": 1000.0}
    # above 0.75: 0.15 up to half the cost, 0.05 more of a quarter's width
    by_hand = (0.9 - 0.75) * (1 - 0.5) + (0.8 - 0.75) * (0.5 - 0.25)
    assert [group.hypervolume.mean for group in compared.groups] == pytest.approx([by_hand, by_hand])
    assert [group.name for group in compared.groups] == ["magnitude", "random"]


def test_without_a_floor_hypervolumes_begin_at_the_strictest_value_of_each_objective() -> None:
    one, two = make_compared("one", floor=None), make_compared("two", floor=None)
    studies = [
        replace(one, summary=replace(one.summary, reference_point={"val_accuracy": 0.2, "macs": 1000.0})),
        replace(two, summary=replace(two.summary, reference_point={"val_accuracy": 0.1, "macs": 600.0})),
    ]
    assert compare(studies).reference_point == {"val_accuracy": 0.2, "macs": 600.0}


def test_groups_have_mean_and_deviation_over_their_studies_and_single_ones_none() -> None:
    studies = [
        make_compared("a", [(0.9, 500.0)], seed=0),
        make_compared("b", [(0.7, 500.0)], seed=1),
        make_compared("c", [(0.9, 500.0)], methods=("taylor", "magnitude")),
    ]
    one, two = compare(studies).groups
    assert (one.name, two.name) == ("magnitude", "magnitude+taylor")
    # 0.4 * 0.5 and 0.2 * 0.5; the deviation of two numbers is their distance over the root of two
    assert one.hypervolume.mean == pytest.approx(0.15)
    assert one.hypervolume.std == pytest.approx(0.1 / math.sqrt(2))
    assert (two.hypervolume.mean, two.hypervolume.std) == (pytest.approx(0.2), None)
    assert [group.name for group in compare(studies, by="study").groups] == ["a", "b", "c"]
    assert Spread.of([]) is None


def test_validation_chooses_within_a_budget_and_test_reports() -> None:
    worse_on_test = make_trial(
        3, "sampler", 0.5, 0.85, metrics={"val_accuracy": 0.85, "test_accuracy": 0.6, "macs": 240.0}
    )
    study = make_compared("a", others=[worse_on_test])
    group = compare([study, make_compared("b", seed=1)], shares=(0.5, 0.25, 0.1)).groups[0]
    assert [r and r.number for r in group.results[0].chosen] == [1, 3, None]
    assert group.summarise(0, "val_accuracy") == Spread(pytest.approx(0.9), pytest.approx(0.0))
    quarter = group.summarise(1, "test_accuracy")
    assert quarter is not None
    assert quarter.mean == pytest.approx((0.6 + 0.79) / 2)
    assert group.find_chosen(2) == []
    assert group.summarise(2, "val_accuracy") is None


def test_a_network_below_the_floor_stopped_or_failed_is_not_chosen() -> None:
    stopped = make_trial(3, "sampler", 0.5, 0.95, state="PRUNED")
    failed = make_trial(4, "sampler", 0.5, 0.95, state="FAIL", metrics={"macs": 100.0})
    study = make_compared("a", others=[stopped, failed])
    compared = compare([study, make_compared("b")], least="0.85", shares=(0.5, 0.25))
    result = compared.groups[0].results[0]
    assert [r and r.number for r in result.chosen] == [1, None]
    assert result.hypervolume == pytest.approx((0.9 - 0.85) * 0.5)
    assert [compared.groups[0].count(state) for state in ("FAIL", "PRUNED", "COMPLETE")] == [1, 1, 6]


ACCURACY, PARAMETERS, MACS = ("val_accuracy", "maximize"), ("parameters", "minimize"), ("macs", "minimize")


@pytest.mark.parametrize(
    ("objectives", "rows", "number"),
    [
        ((ACCURACY, MACS), ((0.9, 500.0), (0.9, 300.0)), 2),
        ((MACS, ACCURACY), ((300.0, 0.8), (500.0, 0.9)), 2),  # validation, wherever it stands
        ((ACCURACY, PARAMETERS, MACS), ((0.9, 50.0, 500.0), (0.9, 80.0, 250.0)), 2),
        ((ACCURACY, MACS, PARAMETERS), ((0.9, 300.0, 80.0), (0.9, 300.0, 50.0)), 2),  # else 2 dominates it
        ((ACCURACY, MACS), ((0.9, 300.0), (0.9, 300.0)), 1),
        ((ACCURACY, MACS), ((0.9, 300.0), (math.nan, 200.0)), 1),
    ],
)
def test_of_equal_networks_the_cheaper_one_is_chosen(
    objectives: tuple[tuple[str, str], ...], rows: tuple[tuple[float, ...], ...], number: int
) -> None:
    study = make_other("a", objectives, [1.0] * len(objectives), *rows)
    chosen = choose_within(study.records, study.summary.objectives, "macs", 600.0)
    assert chosen is not None
    assert chosen.number == number


def test_of_equal_networks_the_cheaper_one_is_chosen_where_cost_is_no_objective() -> None:
    records = [
        make_trial(number, "sampler", 0.5, 0.9, metrics={"val_accuracy": 0.9, "macs": macs})
        for number, macs in ((1, 500.0), (2, 300.0), (3, 700.0))
    ]
    chosen = choose_within(records, [Objective("val_accuracy", "maximize")], "macs", 600.0)
    assert chosen is not None
    assert chosen.number == 2


@pytest.mark.parametrize(
    ("objectives", "rows", "number"),
    [
        ((ACCURACY, PARAMETERS, MACS), ((0.9, 80.0, 250.0), (0.9, 50.0, 500.0)), 2),
        ((ACCURACY, MACS, PARAMETERS), ((0.9, 500.0, 50.0), (0.9, 250.0, 80.0)), 2),
        ((MACS, ACCURACY, PARAMETERS), ((500.0, 0.9, 50.0), (250.0, 0.9, 80.0), (100.0, 0.8, 10.0)), 2),
        ((PARAMETERS, MACS), ((80.0, 250.0), (50.0, 500.0)), 2),
    ],
)
def test_the_best_of_a_front_is_what_a_comparison_chooses_without_a_limit(
    objectives: tuple[tuple[str, str], ...], rows: tuple[tuple[float, ...], ...], number: int
) -> None:
    studies = [make_other(label, objectives, [1000.0] * len(objectives), *rows) for label in "ab"]
    (chosen,) = compare(studies, by="study", shares=(1.0,)).groups[0].results[0].chosen
    assert chosen is not None
    declared = studies[0].summary.objectives
    front = sort_front(mark_front(studies[0].records, declared))
    assert [chosen.number, find_member(front, declared, "best").number] == [number, number]


def test_a_loss_is_judged_by_its_smallest_values_and_begins_at_the_smallest_reference() -> None:
    objectives = (("val_loss", "minimize"), ("macs", "minimize"))
    rows = ((0.3, 500.0), (0.6, 250.0), (0.9, 400.0))
    studies = [
        make_other(label, objectives, (most, 1000.0), *rows) for label, most in (("a", 1.0), ("b", 0.8))
    ]
    compared = compare(studies, by="study", shares=(0.5, 0.25, 0.1))
    assert compared.reference_point == {"val_loss": 0.8, "macs": 1000.0}
    result = compared.groups[0].results[0]
    # below 0.8: 0.5 from half the cost on, and 0.2 of a quarter's width before it
    assert result.hypervolume == pytest.approx((0.8 - 0.3) * (1 - 0.5) + (0.8 - 0.6) * (0.5 - 0.25))
    assert [r and r.number for r in result.chosen] == [1, 2, None]
    assert compared.metrics == ["val_loss", "test_loss", "macs"]


def test_three_objectives_give_a_volume_and_budgets_of_the_first_cost() -> None:
    objectives = (("val_accuracy", "maximize"), ("parameters", "minimize"), ("macs", "minimize"))
    rows = ((0.9, 50.0, 500.0), (0.8, 80.0, 250.0))
    studies = [make_other(label, objectives, (0.5, 100.0, 1000.0), *rows) for label in ("a", "b")]
    compared = compare(studies, by="study", shares=(0.9, 0.6, 0.4))
    result = compared.groups[0].results[0]
    # both boxes less what they share
    by_hand = 0.4 * 0.5 * 0.5 + 0.3 * 0.2 * 0.75 - 0.3 * 0.2 * 0.5
    assert result.hypervolume == pytest.approx(by_hand)
    assert (compared.cost, [budget.cost for budget in compared.budgets]) == ("parameters", [90.0, 60.0, 40.0])
    assert [r and r.number for r in result.chosen] == [1, 1, None]


def test_pairs_are_of_equal_seeds_alone() -> None:
    low, high = [(0.7, 500.0)], [(0.9, 500.0)]
    studies = [
        *(make_compared(f"m{seed}", points, seed=seed) for seed, points in enumerate((high, low, high))),
        *(
            make_compared(f"r{seed}", points, seed=seed, methods=("random",))
            for seed, points in ((0, low), (1, low), (7, low))
        ),
    ]
    (pairing,) = compare(studies).pairings
    assert (pairing.first, pairing.second, pairing.seeds) == ("magnitude", "random", (0, 1))
    assert (pairing.n_above, pairing.n_equal) == (1, 1)
    assert compare([studies[2], studies[5]]).pairings == ()


def make_modelled(
    label: str, method: str, milliseconds: float, *, accuracy: float = 0.9, seed: int = 0, width: int = 1
) -> ComparedStudy:
    """Return a study of a network of a latency modelled within 10%; the dense one takes 10 ms."""
    objectives = (("val_accuracy", "maximize"), ("latency_ms", "minimize"))
    study = make_other(label, objectives, (0.5, 10.0), (accuracy, milliseconds))
    description = {
        **study.description,
        "latency": {"error": 0.1},
        "space": {**study.description["space"], "methods": {method: {}}},
        "seed": seed,
    }
    traded = read_objectives(description)
    costs = {"macs": 1000.0, "latency_ms": 10.0}
    summary = replace(study.summary, objectives=traded, dense_costs=costs, seed=seed)
    records = [replace(record, architecture={"conv1": width}) for record in study.records]
    return replace(study, description=description, summary=summary, records=records)


def test_hypervolumes_of_modelled_latencies_are_apart_only_beyond_the_error_of_the_model(
    tmp_path: Path,
) -> None:
    studies = [
        make_modelled("a0", "magnitude", 5.0),
        make_modelled("b0", "random", 5.8, width=2),
        make_modelled("a1", "magnitude", 5.0, seed=1),
        make_modelled("b1", "random", 8.5, width=3, seed=1),
    ]
    compared = compare(studies)
    near, _ = compared.groups[1].results
    assert near.hypervolume == pytest.approx(0.4 * 0.42)
    assert near.bounds[0] < near.hypervolume < near.bounds[1]
    half = float(np.mean(np.abs(near.draws / 0.4 - 0.42) <= 0.058))  # the margin is the median error
    assert half == pytest.approx(0.5, abs=0.06)
    assert compared.groups[0].results[0].draws.tolist() == compared.groups[0].results[1].draws.tolist()
    (pairing,) = compared.pairings
    assert (pairing.n_above, pairing.n_equal) == (1, 1)
    assert describe_pairing(pairing, compared.has_margins) == (
        "equal seeds (0, 1): magnitude above random in 1 of 2 pairs, and too near to tell in 1"
    )
    row = tabulate(compared)[0]
    low, high = compared.groups[0].bounds
    assert (row["hypervolume_low"], row["hypervolume_high"]) == (low, high)
    assert f"{low:.4f} to {high:.4f}" in format_groups(compared, "methods")
    write_comparison(tmp_path / "c.json", compared)
    told = json.loads((tmp_path / "c.json").read_text())["groups"][1]["studies"][0]
    assert (told["hypervolume_low"], told["hypervolume_high"]) == pytest.approx(near.bounds)


def test_networks_of_the_same_widths_have_the_same_error() -> None:
    studies = [
        make_modelled("a", "magnitude", 5.0, accuracy=0.91),
        make_modelled("b", "random", 5.0),
        make_modelled("c", "taylor", 5.0, width=2),
    ]
    compared = compare(studies)
    found = {(pair.first, pair.second): (pair.n_above, pair.n_equal) for pair in compared.pairings}
    assert found["magnitude", "random"] == (1, 0)
    assert found["magnitude", "taylor"] == found["random", "taylor"] == (0, 1)


def test_one_near_the_limit_that_is_never_below_another_is_above_it() -> None:
    studies = [
        make_modelled("a", "magnitude", 9.5, accuracy=0.95),
        make_modelled("b", "random", 9.5),  # in some draws both networks are slower than counts
    ]
    (pairing,) = compare(studies).pairings
    assert (pairing.n_above, pairing.n_equal) == (1, 0)


def test_many_trials_that_add_nothing_do_not_raise_the_bounds() -> None:
    one = make_modelled("a", "magnitude", 5.0)
    (record,) = one.records
    dominated = [
        replace(
            record,
            number=number,
            architecture={"conv1": number},
            metrics={**record.metrics, "latency_ms": 5.01},
        )
        for number in range(2, 60)
    ]
    many = replace(make_modelled("b", "random", 5.0), records=[record, *dominated])
    compared = compare([one, many])
    assert compared.groups[0].bounds == compared.groups[1].bounds
    (pairing,) = compared.pairings
    assert (pairing.n_above, pairing.n_equal) == (0, 1)


def test_means_of_the_same_studies_are_equal_in_any_order() -> None:
    heights = (0.6, 0.7, 0.8)
    studies = [
        make_compared(f"{method}{place}", [(height, 500.0)], methods=(method,))
        for method, order in (("magnitude", heights), ("random", heights[::-1]))
        for place, height in enumerate(order)
    ]
    (pairing,) = compare(studies).pairings
    assert (pairing.n_above, pairing.n_equal) == (0, 1)


def test_where_nothing_is_modelled_hypervolumes_have_no_bounds_to_tell() -> None:
    compared = compare([make_compared("a"), make_compared("b", seed=1)])
    result = compared.groups[0].results[0]
    assert result.bounds == (result.hypervolume, result.hypervolume)
    assert "hypervolume_low" not in tabulate(compared)[0]
    assert "95%" not in format_groups(compared, "methods")


def test_a_seed_given_twice_in_a_group_makes_one_pair_of_means_and_is_warned_of() -> None:
    heights = {"m": (0.9, 0.6, 0.9), "r": (0.7, 0.7, 0.9)}  # means of 0.8 and 0.7667
    studies = [
        make_compared(f"{group}{place}", [(height, 500.0)], methods=(method,))
        for group, method in (("m", "magnitude"), ("r", "random"))
        for place, height in enumerate(heights[group])
    ]
    (pairing,) = compare(studies).pairings
    assert (pairing.seeds, pairing.n_above, pairing.n_equal) == ((0,), 1, 0)
    assert find_warnings(studies) == [
        f"group {method} has 3 studies of seed 0, which are no repetitions by seed and make one pair"
        for method in ("magnitude", "random")
    ]
    assert find_warnings(studies, by="study") == []


def test_a_floor_below_what_a_study_looked_for_is_refused() -> None:
    studies = [make_compared("a", floor=0.5), make_compared("b", floor=0.75)]
    with pytest.raises(
        ConfigurationError, match=r"at least 0\.75, below which b looked for nothing, got 0\.7"
    ):
        compare(studies, least="0.7")
    relative = compare(studies, least="dense-0.02").floor
    assert relative is not None
    assert relative.accuracy == pytest.approx(0.97)
    with pytest.raises(ConfigurationError, match="expected a least accuracy in"):
        compare(studies, least="much")
    losses = [["val_loss", "minimize"], ["macs", "minimize"]]
    with pytest.raises(ConfigurationError, match="leave --floor out"):
        compare([make_compared("a", floor=None, objectives=losses)] * 2, least="0.9")


def test_the_least_floor_that_is_told_is_accepted_as_it_is_told() -> None:
    studies = [make_compared("a", floor=0.5), make_compared("b", floor=83 / 90)]
    with pytest.raises(ConfigurationError, match=r"got 0\.922222;") as refused:
        compare(studies, least="0.922222")
    told = str(refused.value).split("at least ")[1].split(",")[0]
    floor = compare(studies, least=told).floor
    assert floor is not None
    assert floor.accuracy == 83 / 90


def test_table_has_a_row_for_each_group_and_budget_and_nothing_where_none_was_found(tmp_path: Path) -> None:
    compared = compare([make_compared("a"), make_compared("b", seed=1)], shares=(0.5, 0.1))
    half, tenth = tabulate(compared)
    assert (half["group"], half["studies"], half["finished"], half["images"]) == ("magnitude", 2, 6, 7200)
    assert (half["limit"], half["found"], half["macs"], half["test_accuracy"]) == (
        500.0,
        2,
        500.0,
        pytest.approx(0.89),
    )
    assert (tenth["found"], tenth["val_accuracy"], tenth["test_accuracy_std"]) == (0, None, None)
    write_comparison(tmp_path / "c.csv", compared)
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val_accuracy"] for row in rows] == ["0.9", ""]
    write_comparison(tmp_path / "c.json", compared, ["mind the gap"])
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["warnings"] == ["mind the gap"]
    assert [study["seed"] for study in stored["groups"][0]["studies"]] == [0, 1]
    assert [chosen and chosen["trial"] for chosen in stored["groups"][0]["studies"][0]["chosen"]] == [1, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "c.json"]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_test_value_that_is_not_finite_counts_as_missing(tmp_path: Path, value: float) -> None:
    objectives = (("val_ppl", "minimize"), ("macs", "minimize"))
    one, two = (make_other(label, objectives, (90.0, 1000.0), (30.0, 500.0)) for label in "ab")
    (record,) = one.records
    one = replace(one, records=[replace(record, metrics={**record.metrics, "test_ppl": value})])
    two = replace(two, records=[replace(record, metrics={**record.metrics, "test_ppl": 31.0})])
    compared = compare([one, two], shares=(0.5,))
    assert compared.groups[0].summarise(0, "test_ppl") is None
    assert compared.groups[0].summarise(0, "val_ppl") == Spread(30.0, 0.0)
    (row,) = tabulate(compared)
    assert (row["found"], row["test_ppl"], row["test_ppl_std"]) == (2, None, None)
    write_comparison(tmp_path / "c.json", compared)
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert (group["chosen"][0]["val_ppl"], group["chosen"][0]["test_ppl"]) == (30.0, None)
    told = [study["chosen"][0] for study in group["studies"]]
    assert ["test_ppl" in chosen for chosen in told] == [False, True]


def test_deviations_of_huge_numbers_are_finite() -> None:
    spread = Spread.of([1e200, 3e200])
    assert spread == Spread(2e200, pytest.approx(math.sqrt(2) * 1e200))


def test_images_are_those_of_all_studies_or_unknown() -> None:
    silent = make_compared("b")
    silent = replace(silent, records=[replace(record, curve=(), times=()) for record in silent.records])
    assert compare([make_compared("a"), silent]).groups[0].n_images is None
