"""A cluster's machines before a study: the one with other software is named."""

from __future__ import annotations

import pytest

from dirprune.errors import ConfigurationError
from dirprune.records.folder import StudyFolder
from dirprune.remote import RemoteFolder
from dirprune.tuning.cluster import Resources
from dirprune.tuning.machines import check_machines
from dirprune.tuning.software import check_software, describe_software


def test_a_machine_with_other_software_is_named_with_both_versions():
    own = describe_software()
    check_software(own, "10.0.0.2", own)
    assert {"Python", "ray", "torch"} <= own.keys()
    with pytest.raises(ConfigurationError, match=r"^expected ray .* node 10\.0\.0\.2 has 2\.1;"):
        check_software(own, "10.0.0.2", {**own, "ray": "2.1"})
    with pytest.raises(ConfigurationError, match=r"expected Python .* node b has 3\.8\.1"):
        check_software(own, "b", {**own, "Python": "3.8.1"})


def test_a_storage_that_cannot_be_written_is_found_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    folder = StudyFolder(tmp_path / "study", RemoteFolder(str(tmp_path / "file" / "study")))
    with pytest.raises(
        ConfigurationError, match=r"cannot write to the storage .*; check the address, its bucket"
    ):
        check_machines(Resources(), folder, print)


def test_a_storage_that_works_is_left_as_it_was(tmp_path):
    (tmp_path / "shared").mkdir()
    check_machines(
        Resources(), StudyFolder(tmp_path / "study", RemoteFolder(str(tmp_path / "shared"))), print
    )
    assert list((tmp_path / "shared").iterdir()) == []
