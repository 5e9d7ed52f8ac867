"""Whether a study that is to go on is the one that was started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dirprune.study.spec import StudySpec

PARTS = ("fine_tuning", "space")
"""Parts of a description with fields of their own, which later versions have added to."""


def find_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a study would not be what it is, sorted.

    A field that the stored description lacks was not known when the study was started, which therefore ran
    with its default: with that it is no difference.

    Args:
        stored: What the study is: `StudySpec.describe` and what was found out later, as JSON gives it back.
        wanted: What it would be, as far as it is known yet.
    """
    default = json.loads(json.dumps(StudySpec(name="any", network="lenet5", data="digits").describe()))
    known = {**default, **stored}
    for part in PARTS:
        if part in stored:
            known[part] = {**default[part], **stored[part]}
    return [key for key in sorted(wanted) if known.get(key) != wanted[key]]
