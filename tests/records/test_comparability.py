"""What studies may be compared, and what else than the methods may make them differ."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from dirprune.errors import StudyError
from dirprune.records.comparability import check_comparable, find_warnings
from dirprune.records.comparison import ComparedStudy
from dirprune.study.difference import complete
from tests.records.compared_studies import POINTS, make_compared
from tests.records.example_study import LATENCY_OBJECTIVES, N_CHANNELS, make_trial


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
    assert find_warnings([traded[0], traded[2]], by="study") == [
        "latency_ms is modelled, within 10%: networks that differ by as little say nothing, and a budget "
        "may be missed by it"
    ]


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
