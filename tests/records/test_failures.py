"""Why trials failed is counted by reason, and says which methods and which studies came to nothing."""

from __future__ import annotations

import pytest

from dirprune.records.failures import count_failures, describe_failures, describe_fruitless
from dirprune.records.record import TrialRecord

DENSE = TrialRecord(0, "COMPLETE", "dense", {"conv1": 10}, "mine")  # of studies that gave it a method


def make(number: int, reason: str | None = None, method: str = "taylor", state: str = "FAIL") -> TrialRecord:
    return TrialRecord(number, state, "sampler", {"conv1": 5}, method, reason=reason)  # type: ignore[arg-type]


def finished(number: int, method: str = "taylor") -> TrialRecord:
    return make(number, None, method, "COMPLETE")


def test_nothing_is_said_where_no_trial_failed() -> None:
    stopped = make(2, "stopped at 100 images", state="PRUNED")
    assert describe_failures([DENSE, finished(1), stopped]) == []
    assert describe_fruitless([DENSE, stopped]) == ""  # not because of failures
    assert describe_fruitless([DENSE]) == ""


def test_reasons_are_counted_by_their_first_line_the_most_frequent_first() -> None:
    records = [
        DENSE,
        finished(1),
        make(2, "KeyError: 'a'\nmore"),
        make(3, "OSError"),
        make(4, "KeyError: 'a'"),
    ]
    assert describe_failures(records) == [
        "3 of 5 trials failed:",
        "  2  KeyError: 'a' (trials 2, 4)",
        "  1  OSError (trial 3)",
    ]


def test_reasons_that_differ_by_figures_alone_are_one() -> None:
    texts = ["loss 1.5e-3 after 1,200 images", "loss 7 after 80 images"]
    (failure,) = count_failures([make(3, texts[1]), make(2, texts[0])])
    assert (failure.reason, failure.is_same) == (texts[0], False)
    assert [record.number for record in failure.records] == [2, 3]
    told = describe_failures([DENSE, finished(1), make(2, texts[0]), make(3, texts[1])])
    assert told[1] == "  2  loss 1.5e-3 after 1,200 images (trials 2, 3; figures of trial 2)"


@pytest.mark.parametrize(
    "texts",
    [
        (
            "loss nan",
            "loss -7",
            "loss 7.1E-3",
            "loss NaN",
            "loss -inf",
            "loss nan.",
            "loss 1,200.",
            "loss 1.e-05",
        ),
        ("trial 3: no images", "trial 12: no images"),
        ("tried to allocate 2.00 GiB, 80MiB are free", "tried to allocate 512.00 MiB, 1.5 GiB are free"),
        ("no answer after 80ms (50%)", "no answer after 2.5 s (7%)"),
        ("shapes cannot be multiplied (128x17 and 25x10)", "shapes cannot be multiplied (64x5 and 25x10)"),
        ("size [1, 3] at 0x7f3a, epoch=3", "size [8, 30] at 0xb2, epoch=12"),
        ("no file a/b/3/best", "no file a/b/14/best"),
        ("cannot write events/3.jsonl", "cannot write events/14.jsonl"),
        ("images 10-20 on cuda:0", "images 30-45 on cuda:1"),
        ("no answer after 80ms.", "no answer after 2.5 s"),
    ],
)
def test_figures_are_told_by_what_stands_around_them(texts: tuple[str, ...]) -> None:
    (failure,) = count_failures([make(number, text) for number, text in enumerate(texts, start=1)])
    assert len(failure.records) == len(texts)


@pytest.mark.parametrize(
    "names",
    [
        ("'conv1.weight'", "'conv2.weight'"),
        ("'0.weight'", "'3.weight'"),
        ("'nan.weight'", "'inf.weight'"),
        ("layers.0.bias", "layers.12.bias"),
        ("float16", "float64"),
        ("resnet-20", "resnet-56"),
        ("scale_1", "scale_2"),
        ("3D input", "4D input"),
        ("1.5abc", "2.5abc"),
        ("nan", "nano"),
    ],
)
def test_digits_in_names_are_no_figures(names: tuple[str, str]) -> None:
    assert len(count_failures([make(1, f"KeyError: {names[0]}"), make(2, f"KeyError: {names[1]}")])) == 2


def test_a_reason_of_many_trials_names_their_methods_and_rare_reasons_are_summed_up() -> None:
    many = [make(number, "OSError", "fisher" if number % 2 else "taylor") for number in range(1, 11)]
    rare = [make(20 + place, f"{letter}Error") for place, letter in enumerate("ABCDEF")]
    told = describe_failures([DENSE, *many, *rare, finished(30), finished(31, "fisher")])
    assert told[:2] == ["16 of 19 trials failed:", "  10  OSError (methods fisher, taylor)"]
    assert told[5:] == [
        "  1  DError (trial 23)",
        "  2  for 2 other reasons: see the column reason of trials.csv",
    ]


def test_a_method_all_of_whose_trials_failed_is_named() -> None:
    broken = [make(number, "KeyError: 'x'", "mine") for number in (1, 2, 3)]
    records = [DENSE, *broken, make(4, "OSError"), finished(5), make(6, "MemoryError", "fisher")]
    assert describe_failures(records)[4:] == [
        "method fisher: its one trial failed: MemoryError",
        "method mine: all 3 trials failed: KeyError: 'x'",
    ]
    mixed = describe_failures([*records, make(7, "OSError", "mine")])
    assert mixed[-1] == "method mine: all 4 trials failed, 3 of them with: KeyError: 'x'"
    with_one = describe_failures([*records, make(7, None, "mine", "RUNNING")])
    assert with_one[-1].startswith("method fisher")


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], "no pruned trial has finished: all 2 trials failed: OSError"),
        ([make(3, "KeyError")], "no pruned trial has finished: all 3 trials failed, 2 of them with: OSError"),
        (
            [make(3, state="PRUNED")],
            "no pruned trial has finished: 2 of 3 trials failed, 1 has not run to the end: OSError",
        ),
        ([finished(3)], ""),
        (
            [make(3, state="PRUNED"), make(4, state="PRUNED")],  # a tie
            "no pruned trial has finished: 2 of 4 trials failed, 2 have not run to the end: OSError",
        ),
        (
            [make(3, state="PRUNED"), make(4, state="RUNNING")],  # whatever keeps them from an end
            "no pruned trial has finished: 2 of 4 trials failed, 2 have not run to the end: OSError",
        ),
        ([make(number, state="PRUNED") for number in (3, 4, 5)], ""),  # stopped, as most are
        ([make(3, state="RUNNING"), make(4, state="WAITING"), make(5, state="PRUNED")], ""),
    ],
)
def test_a_study_without_a_pruned_network_because_trials_failed_says_so(
    others: list[TrialRecord], expected: str
) -> None:
    records = [DENSE, make(1, "OSError"), make(2, "OSError"), *others]
    assert describe_fruitless(records) == expected
    assert not expected or describe_failures(records)[-1] == expected


def test_trials_that_were_given_up_say_nothing_of_a_method() -> None:
    records = [DENSE, make(1, "abandoned", "mine"), make(2, "abandoned", "mine")]
    assert describe_fruitless(records) == ""
    assert describe_failures(records) == ["2 of 3 trials failed:", "  2  abandoned (trials 1, 2)"]


def test_a_failure_without_a_reason_is_counted_too() -> None:
    assert describe_failures([DENSE, finished(1), make(2)])[1] == "  1  no reason is known (trial 2)"
