"""What a study is opened with: compared with what is stored, and its budget counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dirprune.architecture import Architecture
from dirprune.errors import StudyError
from dirprune.study.space import SearchSpace
from dirprune.tuning.opening import _check_same, _count_given
from tests.tuning.test_ledger import make_spec, open_ledger


@pytest.mark.parametrize("stored", [0.9, "0.90", ".9", "dense-0.020", "dense-0.10", None])
def test_a_least_accuracy_that_an_older_version_stored_as_it_was_written_is_the_same(stored):
    spec = make_spec(min_val_accuracy=stored)
    _check_same(
        "study", {"min_val_accuracy": stored}, {"min_val_accuracy": spec.describe()["min_val_accuracy"]}
    )
    with pytest.raises(StudyError, match=r"min_val_accuracy .*, got 0\.5"):
        _check_same("study", {"min_val_accuracy": stored}, {"min_val_accuracy": "0.5"})


def test_what_a_limit_refuses_is_not_given(tmp_path):
    ledger = open_ledger(tmp_path)
    subject = SimpleNamespace(grouping=ledger.grouping, costs=ledger.costs)
    warm = [Architecture.uniform(ledger.grouping, 0.3)]
    prepared = SimpleNamespace(subject=subject, warm_starts=warm)
    space = SearchSpace(uniform_keep_ratios=(0.75, 0.25))
    assert _count_given(make_spec(space=space), prepared) == 1 + 1 + 2
    assert _count_given(make_spec(space=space, limits={"macs": 60_000.0}), prepared) == 1 + 1 + 1
