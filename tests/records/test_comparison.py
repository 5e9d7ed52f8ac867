"""Studies side by side, on records made by hand: each number here can be worked out without a computer."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from dirprune.errors import ConfigurationError, StudyError
from dirprune.records.appearance import COLOURS, label_of
from dirprune.records.comparability import check_comparable, find_warnings
from dirprune.records.comparison import ComparedStudy, Spread, choose_within, compare
from dirprune.records.comparison_picture import write_comparison_png
from dirprune.records.comparison_tables import tabulate, write_comparison
from dirprune.records.figures import save_figure
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.difference import complete
from dirprune.study.floor import Floor
from dirprune.study.objectives import read_objectives
from dirprune.study.observer import StudySummary
from tests.records.example_study import LATENCY_OBJECTIVES, N_CHANNELS, make_trial

DENSE = {"val_accuracy": 0.99, "test_accuracy": 0.98}
POINTS = ((0.9, 500.0), (0.8, 250.0))  # accuracy and MACs of trials 1 and 2; the dense network has 1,000


def make_compared(
    label: str,
    points: Sequence[tuple[float, float]] = POINTS,
    *,
    seed: int = 0,
    floor: float | None = 0.5,
    methods: Sequence[str] = ("magnitude",),
    ending: str | None = "",
    others: Sequence[TrialRecord] = (),
    **changes: Any,
) -> ComparedStudy:
    """Return a study of the dense network and a trial for each point; test is 0.01 below validation."""
    records = [
        make_trial(
            number,
            "sampler" if number else "dense",
            0.5,
            accuracy,
            metrics={"val_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "macs": macs},
            is_acceptable=floor is None or accuracy >= floor,
        )
        for number, (accuracy, macs) in enumerate([(0.99, 1000.0), *points])
    ]
    description = {
        **complete({}),
        "data": {"name": "digits", "fingerprint": "a", "validation_from": "train:0.1"},
        "space": {**complete({})["space"], "methods": {method: {} for method in methods}},
        "weights": "0123456789",
        "groups": N_CHANNELS,
        "seed": seed,
        **changes,
    }
    least = None if floor is None else Floor(floor, 0)
    reference = {"val_accuracy": 0.1, "macs": 1000.0}
    summary = StudySummary(
        name=label,
        study_id=label,
        folder=StudyFolder(Path(label)),
        objectives=read_objectives(description),
        reference_point=reference if least is None else least.raised(reference),
        dense_costs={"macs": 1000.0},
        n_channels=N_CHANNELS,
        n_trials=3,
        seed=seed,
        floor=least,
    )
    return ComparedStudy(label, summary, description, DENSE, [*records, *others], ending)


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


def test_of_equal_networks_the_cheaper_one_is_chosen() -> None:
    study = make_compared("a", [(0.9, 500.0), (0.9, 300.0)])
    chosen = choose_within(study.records, study.summary.objectives, "macs", 600.0)
    assert chosen is not None
    assert chosen.number == 2


def make_other(
    label: str, objectives: Sequence[tuple[str, str]], reference: Sequence[float], *rows: Sequence[float]
) -> ComparedStudy:
    """Return a study of other objectives: a reference value for each, and trials from number 1 on by row."""
    metrics = [metric for metric, _ in objectives]
    study = make_compared(label, floor=None, objectives=[list(one) for one in objectives])
    records = [
        make_trial(number, "sampler", 0.5, 0.5, metrics=dict(zip(metrics, row, strict=True)))
        for number, row in enumerate(rows, start=1)
    ]
    reference_point = dict(zip(metrics, reference, strict=True))
    costs = {"macs": 1000.0, "parameters": 100.0}
    summary = replace(study.summary, reference_point=reference_point, dense_costs=costs)
    return replace(study, summary=summary, records=records)


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


def test_three_objectives_give_a_volume_and_budgets_of_the_first_cost(drawn: Figures, tmp_path: Path) -> None:
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
    write_comparison_png(tmp_path / "fronts.png", compared)
    (axes,) = drawn[0].axes
    assert [sorted(map(tuple, c.get_offsets().tolist())) for c in axes.collections] == [
        [(50.0, 0.9), (80.0, 0.8)]
    ] * 2
    assert [set(line.get_xdata()) for line in axes.lines] == [{90.0}, {60.0}, {40.0}]  # no steps


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"name": "mnist", "fingerprint": "b"}}, "one data set, got digits in a and mnist in b"),
        ({"data": {"name": "digits", "fingerprint": "b"}}, "cut alike.*in b than in a; .*the same --weights"),
        ({"network": {"name": "resnet20", "options": {}}}, "one network, got lenet5 in a and resnet20 in b"),
        ({"objectives": [["val_loss", "minimize"], ["macs", "minimize"]]}, "one set of objectives, got"),
        ({"evaluation": {"name": "top5"}}, "one evaluation, got accuracy in a and top5 in b"),
        (
            {"evaluation": {"name": "accuracy", "source_sha256": "b"}},
            "one evaluation, got source_sha256=none in a and source_sha256=b in b",
        ),
        (
            {"objectives": [["val_accuracy", "maximize"], ["macs", "minimize"], ["parameters", "minimize"]]},
            r'one set of objectives, got .*"minimize"\]\] in a and .*"minimize"\], \["parameters", .* in b;',
        ),
        (
            {"groups": {**N_CHANNELS, "linear2": 24}},
            "one set of channel groups, got linear2=25 in a and linear2=24 in b",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], expected: str) -> None:
    other = replace(make_compared("b", floor=None), description={**make_compared("b").description, **changes})
    with pytest.raises(StudyError, match=expected):
        check_comparable([make_compared("a"), other])


def test_dense_networks_whose_costs_were_counted_otherwise_are_refused() -> None:
    one, two = make_compared("a"), make_compared("b", seed=1)
    other = replace(two, summary=replace(two.summary, dense_costs={"macs": 1200.0}))
    with pytest.raises(StudyError, match=r"got macs 1,000 in a and 1,200 in b; run those of an earlier ver"):
        check_comparable([one, other])
    timed = replace(two, summary=replace(two.summary, dense_costs={"macs": 1000.0, "latency_ms": 3.0}))
    check_comparable([one, timed])


def with_content(label: str, part: str, content: str | None) -> ComparedStudy:
    """Return a study with a function of its own that carries tensors; None: as an earlier version has it."""
    described = {"module": "mine", "name": "judge", "source_sha256": "0"}
    carried = {} if content is None else {"content_sha256": content}
    return replace(
        make_compared(label),
        description={**make_compared(label).description, part: {**described, **carried}},
    )


def test_content_that_an_earlier_version_did_not_look_at_is_no_difference_in_any_order() -> None:
    for part in ("evaluation", "loss"):
        studies = [with_content("earlier", part, None), with_content("one", part, "1")]
        for given in permutations(studies):
            check_comparable(given)
            assert find_warnings(given, by="study") == []


def test_other_content_is_found_in_any_order_beside_a_study_of_an_earlier_version() -> None:
    for given in permutations(
        [with_content(str(content), "evaluation", content) for content in (None, "1", "2")]
    ):
        with pytest.raises(
            StudyError, match=r"one evaluation, got content_sha256=(1 in 1 and .*=2|2 in 2 and .*=1)"
        ):
            check_comparable(given)
    for given in permutations([with_content(str(content), "loss", content) for content in (None, "1", "2")]):
        (line,) = find_warnings(given, by="study")
        assert line.startswith("the studies differ in loss.content_sha256: ")


def test_a_study_given_twice_is_refused_and_repetitions_are_not() -> None:
    study = make_compared("a")
    with pytest.raises(StudyError, match="each study once, got a and copy"):
        check_comparable([study, replace(study, label="copy")])
    check_comparable([study, make_compared("b", seed=1, methods=("random",), final_fine_tuning={"shift": 1})])


def test_repetitions_and_methods_alone_are_nothing_to_warn_of() -> None:
    studies = [make_compared("a"), make_compared("b", seed=1), make_compared("c", methods=("random",))]
    assert find_warnings(studies) == []


def test_everything_else_by_which_results_may_differ_is_warned_of() -> None:
    space = complete({})["space"]
    narrow = {**space, "methods": {"magnitude": {"norm": ["l1"]}}}
    wide = {**space, "methods": {"magnitude": {"norm": ["l1", "l2"]}}}
    recipe = {**complete({})["fine_tuning"], "lr": 0.5}
    running = make_trial(3, "sampler", 0.5, 0.9, state="RUNNING")
    other = make_compared(
        *("b", POINTS),
        weights="abcdefghij",
        epochs=2.0,
        rungs=[1.0],
        space=wide,
        fine_tuning=recipe,
        others=[running],
    )
    studies = [make_compared("a", epochs=5.0, space=narrow), replace(other, dense={"val_accuracy": 0.5})]
    dense, *differing, options, trials, unfinished = find_warnings(studies, by="study")
    assert dense.startswith(
        "the dense networks differ: 01234567 val_accuracy 0.9900, test_accuracy 0.9800 (a); "
        "abcdefgh val_accuracy 0.5000 (b)"
    )
    assert differing[0] == "the studies differ in epochs: 5.0 (a); 2.0 (b)"
    assert [line.partition(":")[0].rpartition(" ")[2] for line in differing] == [
        "epochs",
        "fine_tuning.lr",
        "rungs",
    ]
    assert options == (
        'the studies differ in the options of magnitude: {"norm": ["l1"]} (a); {"norm": ["l1", "l2"]} (b)'
    )
    assert trials == "the studies differ in trials started: 3 (a); 4 (b); a hypervolume grows with them"
    assert unfinished == "unfinished studies: 1 of 4 trials have not ended (b); go on with --resume first"


def test_options_that_differ_late_in_a_long_text_are_warned_of() -> None:
    space = complete({})["space"]
    options = [{"norm": ["l1"] * 20, "last": [place]} for place in (1, 2)]
    studies = [
        make_compared(str(place), space={**space, "methods": {"magnitude": one}})
        for place, one in enumerate(options)
    ]
    (line,) = find_warnings(studies, by="study")
    assert line == (
        'the studies differ in the options of magnitude: ...1", "l1"], "last": [1]} (0); '
        '...1", "l1"], "last": [2]} (1)'
    )


def with_code(label: str, **codes: str) -> ComparedStudy:
    """Return a study of magnitude and of methods of one's own, by the code of each."""
    methods = {method: {} for method in ("magnitude", *codes)}
    return make_compared(label, space={**complete({})["space"], "methods": methods, "own_methods": codes})


def test_methods_of_ones_own_are_compared_where_studies_share_them() -> None:
    first, other, edited = (
        with_code("a", mine="1" * 32),
        with_code("b", yours="2" * 32),
        with_code("c", mine="3" * 32),
    )
    assert find_warnings([make_compared("d"), first, other], by="study") == []
    assert (
        find_warnings([first, make_compared("d"), with_code("e", mine="1" * 32, yours="2")], by="study") == []
    )
    for studies in ([first, other, edited], [other, first, edited]):
        assert find_warnings(studies, by="study") == [
            f"the studies differ in the code of mine: {'1' * 32} (a); {'3' * 32} (c)"
        ]


def test_models_of_latency_are_refused_where_it_is_traded_and_warned_of_where_it_is_limited() -> None:
    limit, models = {"latency_ms": 2.0}, [{"constant_ms": constant, "error": 0.1} for constant in (1.0, 2.0)]
    studies = [
        make_compared(str(i), limits=limit, latency=model) for i, model in enumerate([*models, models[0]])
    ]
    check_comparable(studies)
    assert find_warnings(studies, by="study") == [
        "the studies limit latency by different models: one (0, 2); others (1); "
        "give all the same --latency FILE"
    ]
    assert find_warnings([studies[0], studies[2]], by="study") == []
    traded = [
        replace(study, summary=replace(study.summary, objectives=LATENCY_OBJECTIVES)) for study in studies
    ]
    with pytest.raises(StudyError, match="studies of one model of latency, got two in 0 and 1"):
        check_comparable(traded)


@pytest.mark.parametrize(
    ("samplers", "expected"),
    [
        ([("tpe", "ehvi"), ("ehvi", "tpe")], []),
        ([(), ()], []),
        ([("ehvi",), ("tpe", "ehvi")], ["the studies differ in samplers: ehvi (0); ehvi+tpe (1)"]),
        (
            [("ehvi",), (), ("ehvi",)],
            ["the studies may differ in samplers: ehvi (0, 2); not known, of an earlier version (1)"],
        ),
        (
            [("ehvi",), ("tpe",), ()],
            ["the studies differ in samplers: ehvi (0); tpe (1); not known, of an earlier version (2)"],
        ),
    ],
)
def test_other_samplers_are_warned_of(samplers: list[tuple[str, ...]], expected: list[str]) -> None:
    studies = [replace(make_compared(str(i)), samplers=names) for i, names in enumerate(samplers)]
    assert find_warnings(studies, by="study") == expected


def test_a_least_accuracy_that_an_earlier_version_stored_as_it_was_written_is_the_same() -> None:
    studies = [make_compared(str(i), min_val_accuracy=least) for i, least in enumerate(("0.9", 0.9, ".90"))]
    assert find_warnings(studies, by="study") == []
    other = make_compared("other", min_val_accuracy=None)
    assert find_warnings([*studies, other], by="study") == [
        "the studies differ in min_val_accuracy: 0.9 (0, 1, 2); none (other)"
    ]


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (None, "the last run is at work, was killed, or was of an earlier version"),
        ("the disk is full", "the disk is full"),
    ],
)
def test_a_study_that_did_not_end_in_order_is_warned_of(ending: str | None, expected: str) -> None:
    (line,) = find_warnings([make_compared("a"), make_compared("b", ending=ending)], by="study")
    assert line.startswith("unfinished studies: ")
    assert f"{expected} (b)" in line


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


def test_images_are_those_of_all_studies_or_unknown() -> None:
    silent = make_compared("b")
    silent = replace(silent, records=[replace(record, curve=(), times=()) for record in silent.records])
    assert compare([make_compared("a"), silent]).groups[0].n_images is None


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
