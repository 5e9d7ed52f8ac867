"""When a search has come to its end before all its trials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.errors import ConfigurationError
from dirprune.study.stopping import Patience, parse_duration

volumes = st.lists(st.floats(0.01, 1), min_size=1, max_size=30).map(sorted)


def ends_at(patience: Patience, hypervolumes: list[float]) -> int | None:
    """Return after how many settled trials the search ends, or None."""
    return next((n for n, value in enumerate(hypervolumes, 1) if patience.settled(value)), None)


def test_search_ends_after_so_many_trials_without_growth():
    assert ends_at(Patience(3), [0.5, 0.6, 0.6, 0.6, 0.6, 0.9]) == 5


def test_growth_below_the_share_is_no_growth():
    values = [0.5, 0.502, 0.502, 0.503]
    assert ends_at(Patience(3, 0.01), values) == 4
    assert ends_at(Patience(3, 0.001), values) is None


def test_small_steps_count_together():
    steps = [0.5 * 1.004**n for n in range(40)]
    assert ends_at(Patience(3, 0.01), steps) is None


def test_search_that_has_found_nothing_yet_goes_on():
    assert ends_at(Patience(2), [0.0] * 50) is None


@given(volumes, st.integers(1, 10))
def test_more_patience_never_ends_a_search_earlier(values, n_trials):
    sooner, later = ends_at(Patience(n_trials), values), ends_at(Patience(n_trials + 1), values)
    assert later is None or (sooner is not None and sooner < later)


@given(volumes, st.integers(1, 10), st.sampled_from([0.25, 2.0, 64.0]))
def test_the_unit_of_the_hypervolume_does_not_matter(values, n_trials, unit):
    scaled = [unit * value for value in values]
    assert ends_at(Patience(n_trials), values) == ends_at(Patience(n_trials), scaled)


@pytest.mark.parametrize(
    ("given", "message"), [((0, 0.1), "at least 1"), ((3, -1), "at least 0"), ((3, float("nan")), "finite")]
)
def test_patience_that_cannot_work_is_refused(given, message):
    with pytest.raises(ConfigurationError, match=message):
        Patience(*given)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), (" 1.5H ", 5400)]
)
def test_durations_have_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "2d", "m", "nan", "1e3", "15 minutes"])
def test_durations_that_are_none_are_refused_with_examples(text):
    with pytest.raises(ConfigurationError, match="try 90, 15m or 2h"):
        parse_duration(text)
