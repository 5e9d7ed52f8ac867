"""Data sets by name or by function, in the four roles of a pruning study."""

from __future__ import annotations

from dirprune.data.datasets import read_dataset
from dirprune.data.roles import DataRoles, Split, make_roles
from dirprune.data.sources import DATA_NAMES, check_data_name, is_downloaded, load_data
from dirprune.data.store import Place

__all__ = [
    "DATA_NAMES",
    "DataRoles",
    "Place",
    "Split",
    "check_data_name",
    "is_downloaded",
    "load_data",
    "make_roles",
    "read_dataset",
]
