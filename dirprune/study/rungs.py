"""Whether trials come to the rungs at which they are to be compared."""

from __future__ import annotations

from dirprune.data import DataRoles
from dirprune.study.spec import StudySpec


def compare_rungs(spec: StudySpec, roles: DataRoles) -> str | None:
    """Return a warning where trials end before a rung, or at it; None elsewhere.

    Args:
        spec: The study.
        roles: Its data: a rung is so many training images.
    """
    end = spec.images(spec.epochs, roles)
    early = [f"{rung:g}" for rung in spec.rungs if spec.images(rung, roles) < end]
    late = [f"{rung:g}" for rung in spec.rungs if spec.images(rung, roles) >= end]
    if spec.halving == "none" or not late:
        return None
    return (
        f"warning: with --epochs {spec.epochs:g} trials end before they are compared at "
        f"rung{'s' * (len(late) > 1)} {' and '.join(late)}; try --rungs {','.join(early) or 0}"
    )
