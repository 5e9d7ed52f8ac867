"""The least accuracy of a network on the front, absolute or by the dense network's."""

import pytest

from dirprune.errors import ConfigurationError
from dirprune.study.floor import Floor, check_exceedable, check_floor, normalise
from dirprune.study.objectives import Objective

OBJECTIVES = (Objective("macs", "minimize"), Objective("val_accuracy", "maximize"))


def test_a_relative_floor_goes_by_the_dense_network():
    dense = {"val_accuracy": 0.93}
    assert Floor.resolve("dense-0.02", OBJECTIVES, dense).accuracy == pytest.approx(0.91)
    assert Floor.resolve("dense-1", OBJECTIVES, dense).accuracy == 0
    assert Floor.resolve(0.9, OBJECTIVES, dense).accuracy == 0.9
    assert Floor.resolve(None, OBJECTIVES, dense) is None


def test_shortfall_is_what_a_trial_lacks():
    floor = Floor.resolve("0.9", OBJECTIVES, {})
    assert floor.shortfall([1000.0, -0.85]) == pytest.approx(0.05)
    assert floor.shortfall([1000.0, -0.95]) < 0


def test_reference_point_never_lies_below_the_floor():
    floor = Floor.resolve("0.9", OBJECTIVES, {})
    assert floor.raised({"macs": 5.0, "val_accuracy": 0.1}) == {"macs": 5.0, "val_accuracy": 0.9}
    assert floor.raised({"macs": 5.0, "val_accuracy": 0.92})["val_accuracy"] == 0.92


def test_dense_network_below_the_floor_is_worth_a_warning():
    floor = Floor.resolve("0.9", OBJECTIVES, {})
    assert "0.8800 is below the least one of 0.9" in floor.compare({"val_accuracy": 0.88})
    assert floor.compare({"val_accuracy": 0.91}) == ""


@pytest.mark.parametrize("text", ["93", "dense-2", "dense", "-0.1", "nan", "some"])
def test_a_floor_that_is_no_fraction_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"expected a least accuracy in \[0, 1\]"):
        check_floor(text)


@pytest.mark.parametrize("text", ["1", 1.0, "1e0", "0.99999999999999999999"])
def test_a_floor_that_no_network_exceeds_is_refused(text):
    with pytest.raises(ConfigurationError, match="expected a least accuracy below 1, which no network exc"):
        check_floor(text)


def test_a_relative_floor_is_refused_where_the_dense_network_cannot_be_exceeded():
    for text in ("dense-0", "dense-1"):
        check_floor(text)  # what it comes to is not known yet
    with pytest.raises(ConfigurationError, match=r"below 1, which no network exceeds, got 1 \(dense-0\)"):
        check_exceedable(Floor.resolve("dense-0", OBJECTIVES, {"val_accuracy": 1.0}).accuracy, "dense-0")
    check_exceedable(Floor.resolve("dense-0", OBJECTIVES, {"val_accuracy": 0.99}).accuracy, "dense-0")


def test_a_percentage_is_told_its_fraction():
    with pytest.raises(ConfigurationError, match=r"93% is 0\.93"):
        check_floor(93)


def test_promises_below_six_times_the_allowed_loss_count_for_nothing():
    floor = Floor.resolve("dense-0.09", OBJECTIVES, {"val_accuracy": 0.9})
    assert floor.least_promise({"val_accuracy": 0.9}) == pytest.approx(0.4)
    assert Floor(0.3, 0).least_promise({"val_accuracy": 0.9}) == 0
    assert Floor(0.95, 0).least_promise({"val_accuracy": 0.9}) == 1


def test_a_dense_network_that_is_never_right_has_nothing_to_lose():
    never = {"val_accuracy": 0.0}
    assert Floor.resolve("dense-0.1", OBJECTIVES, never).least_promise(never) == 0
    assert Floor.resolve("0.5", OBJECTIVES, never).least_promise(never) == 0


def test_a_floor_is_stored_alike_however_it_is_written():
    assert normalise(0.9) == normalise("0.9") == normalise("0.90") == "0.9"
    assert normalise("dense-0.020") == "dense-0.02"
    assert normalise(None) is None
    assert normalise("0.99999999999999") == "0.99999999999999"
