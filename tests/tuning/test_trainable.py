"""What a trial's worker makes sure of before it works."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest

from dirprune.errors import StudyError
from dirprune.tuning.trainable import check_sight


def test_a_node_that_does_not_see_the_study_does_no_work_for_it(tmp_path):
    context = SimpleNamespace(remote=None, folder=tmp_path)
    with pytest.raises(StudyError, match=f"node {platform.node()} does not see {tmp_path}"):
        check_sight(context)
    (tmp_path / "study.json").touch()
    check_sight(context)


def test_where_files_are_exchanged_through_a_storage_none_need_be_seen(tmp_path):
    check_sight(SimpleNamespace(remote="s3://bucket", folder=tmp_path))
