"""Chooses how the values of a group's coalitions are computed, and where they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dirprune.errors import ImportanceError
from dirprune.identity import digest
from dirprune.importance.base import ScoringContext
from dirprune.importance.cache import context_key
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.importance.coalitions.store import StoredValues
from dirprune.importance.coalitions.values import CoalitionValues

VALUES_VERSION = 1  # raised when the same coalitions get other values


def open_values(
    context: ScoringContext,
    group: str,
    kept: Mapping[str, Sequence[int]] | None = None,
    *,
    value: str = "loss",
    is_stored: bool = True,
) -> CoalitionValues:
    """Return what computes the values of a group's coalitions.

    With a workspace in the context, values are kept there and found again by any process.

    Args:
        context: The network must be in evaluation mode; it is left as it is.
        group: Name of the channel group.
        kept: Channels to which other groups are cut already; groups that are not named are whole.
        value: "loss" (minus the mean loss, the better conditioned one) or "accuracy".
        is_stored: Whether to use the workspace.
    Raises:
        ImportanceError: If the value is unknown, or the workspace cannot be written.
    """
    values: CoalitionValues = MaskedValues(context, group, kept, value)
    if context.workspace is None or not is_stored:
        return values
    others = {name: sorted(channels) for name, channels in (kept or {}).items() if name != group}
    key = digest(
        {
            "values_version": VALUES_VERSION,
            "context": context_key(context),
            "group": group,
            "kept": others,
            "value": value,
        }
    )
    folder = context.workspace / "coalitions"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImportanceError(
            f"coalition values must be kept in a folder that can be written, got {folder} "
            f"({error.strerror}); choose another folder"
        ) from error
    progress = context.progress
    return StoredValues(
        values,
        folder / f"{key}.jsonl",
        None if progress is None else lambda n_done, n_total: progress(group, n_done, n_total),
    )
