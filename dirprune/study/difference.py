"""Whether a study that is to go on is the one that was started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from dirprune.identity import CONTENT
from dirprune.study import floor
from dirprune.study.space import OWN_METHODS
from dirprune.study.spec import CALLABLES, StudySpec

PARTS = ("fine_tuning", "space")
"""Parts of a description with fields of their own, which later versions have added to."""


def find_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a study would not be what it is, sorted; "space.methods" is a part of "space".

    A field that the stored description lacks was not known when the study was started, which therefore ran
    with its default: with that it is no difference. Nor is the content of what a function carries, or the
    code of methods from outside the package, where none is stored: earlier versions did not look at it.

    Args:
        stored: What the study is: `StudySpec.describe` and what was found out later, as JSON gives it back.
        wanted: What it would be, as far as it is known yet.
    """
    known = complete(stored)
    for part in CALLABLES:
        if part in stored and CONTENT in wanted.get(part, {}):
            known[part] = {CONTENT: wanted[part][CONTENT], **stored[part]}
    if "space" in stored and OWN_METHODS in wanted.get("space", {}):
        known["space"] = {OWN_METHODS: wanted["space"][OWN_METHODS], **known["space"]}
    return [
        f"{key}.{name}" if name else key
        for key in sorted(wanted)
        if known.get(key) != wanted[key]
        for name in _list_parts(known.get(key), wanted[key])
    ]


def complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored description with the default of each field that was not known when it was written.

    The least accuracy, which earlier versions stored as it was given, is written as it is now.
    """
    default = json.loads(_write_default())
    known = {**default, **stored}
    known["min_val_accuracy"] = floor.normalise(known["min_val_accuracy"])
    for part in PARTS:
        if part in stored:
            known[part] = {**default[part], **stored[part]}
    return known


@cache
def _write_default() -> str:
    return json.dumps(StudySpec(name="any", network="lenet5", data="digits").describe())


def _list_parts(stored: Any, wanted: Any) -> list[str]:
    """Return the names under which two values differ; one without a name where they have no parts."""
    if not (isinstance(stored, Mapping) and isinstance(wanted, Mapping)):
        return [""]
    return [name for name in sorted({*stored, *wanted}) if stored.get(name) != wanted.get(name)]


def find_part(description: Mapping[str, Any], key: str) -> Any:
    """Return what a description says under a key of `find_differences`; None if nothing."""
    first, _, name = key.partition(".")
    found = description.get(first)
    return found.get(name) if name and isinstance(found, Mapping) else found
