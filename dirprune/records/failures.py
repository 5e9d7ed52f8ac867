"""Why a study's trials failed: counted by reason, and what that says of a method or of the whole study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dirprune.records.record import TrialRecord

MAX_REASONS = 5
"""Reasons that are shown; what the others are stands in `trials.csv`."""
MAX_NUMBERS = 8
"""Trials of one reason that are named by their numbers; of more than these only the methods are."""
MAX_METHODS = 3
"""Methods that are named."""
_FIGURE = re.compile(
    r"""
    (?<![\w.]) (?<![^\W\d]-)  # not inside of a name: conv1, layer.1, resnet-20
    [+-]?
    (?> 0x[\da-f]+ | \d+ (?: [.,x]\d+ )* (?: \.? e[+-]?\d+ )? | nan | inf )
    (?: [ ]? (?: [kmgt]?i?b | [mnu]?s ) )?  # 2.00 GiB, 80ms
    \.?+  # the end of a sentence
    (?!\w)  # nor at the beginning of one: 0.weight, 3D
    | (?<=/) \d+ (?=\.[a-z])  # but for a trial's own file: events/12.jsonl
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A figure with its unit; shapes such as 128x256 are one."""


@dataclass(frozen=True)
class Failure:
    """Trials that failed for one reason.

    Attributes:
        reason: The first line of what the first of them gave.
        records: The trials by number, at least one.
        is_same: Whether all gave the same line; else figures in it differ.
    """

    reason: str
    records: tuple[TrialRecord, ...]
    is_same: bool


def count_failures(records: Sequence[TrialRecord]) -> list[Failure]:
    """Return why trials failed, the most frequent reason first.

    Reasons whose first lines differ by figures alone (a loss, a number of images) are the same; the digits
    of a name (conv1, float16) are none.
    """
    alike: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.number):
        if record.state == "FAIL":
            alike.setdefault(_FIGURE.sub("0", _first_line(record)), []).append(record)
    failures = [
        Failure(_first_line(same[0]), tuple(same), len(set(map(_first_line, same))) == 1)
        for same in alike.values()
    ]
    return sorted(failures, key=lambda failure: -len(failure.records))


def describe_failures(records: Sequence[TrialRecord]) -> list[str]:
    """Return lines that say how many trials failed and why; none where no trial failed.

    Args:
        records: Every trial of a study.
    """
    failures = count_failures(records)
    if not failures:
        return []
    n_failed = sum(len(failure.records) for failure in failures)
    lines = [f"{n_failed} of {_count(len(records))} failed:"]
    lines += [f"  {len(one.records)}  {one.reason} ({_name(one)})" for one in failures[:MAX_REASONS]]
    if others := failures[MAX_REASONS:]:
        n_others = sum(len(failure.records) for failure in others)
        lines.append(f"  {n_others}  for {len(others)} other reasons: see the column reason of trials.csv")
    verdict = describe_fruitless(records)
    return lines + ([verdict] if verdict else _describe_methods(records))


def describe_fruitless(records: Sequence[TrialRecord]) -> str:
    """Return that nothing came of a study because trials failed; empty where that is not so.

    Trials that somebody gave up do not count. Where fewer than half of the others failed, it is not for
    failures that none has finished: most were stopped, are paused or under way.
    """
    pruned = _choose_pruned(records)
    failures = count_failures(pruned)
    n_failed = sum(len(failure.records) for failure in failures)
    n_others = len(pruned) - n_failed
    if not failures or n_failed < n_others or any(record.state == "COMPLETE" for record in pruned):
        return ""
    others = f", {_have(n_others)} not run to the end" if n_others else ""
    return f"no pruned trial has finished: {_all(n_failed, len(pruned))}{others}{_most_often(failures)}"


def _describe_methods(records: Sequence[TrialRecord]) -> list[str]:
    """Return a line for each method all of whose trials failed."""
    lines = []
    pruned = _choose_pruned(records)
    for method in sorted({record.method for record in pruned if record.method}):
        own = [record for record in pruned if record.method == method]
        failures = count_failures(own)
        if sum(len(failure.records) for failure in failures) == len(own):
            lines.append(f"method {method}: {_all(len(own), len(own))}{_most_often(failures)}")
    return lines


def _choose_pruned(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials whose networks are pruned, without those that somebody gave up."""
    return [record for record in records if record.source != "dense" and not record.is_abandoned]


def _first_line(record: TrialRecord) -> str:
    lines = (record.reason or "").strip().splitlines()
    return lines[0].strip() if lines else "no reason is known"


def _name(failure: Failure) -> str:
    """Return which trials they are, and whose figures the reason has where others have others."""
    records = failure.records
    if len(records) <= MAX_NUMBERS:
        numbers = ", ".join(str(record.number) for record in records)
        which = f"trial{'' if len(records) == 1 else 's'} {numbers}"
    else:
        methods = sorted({record.method for record in records if record.method})
        named = ", ".join(methods[:MAX_METHODS]) + (", ..." if len(methods) > MAX_METHODS else "")
        which = f"method{'' if len(methods) == 1 else 's'} {named}" if methods else "trials of no method"
    return which if failure.is_same else f"{which}; figures of trial {records[0].number}"


def _count(n_trials: int) -> str:
    return f"{n_trials} trial{'' if n_trials == 1 else 's'}"


def _all(n_failed: int, n_trials: int) -> str:
    if n_failed < n_trials:
        return f"{n_failed} of {_count(n_trials)} failed"
    return "its one trial failed" if n_trials == 1 else f"all {n_trials} trials failed"


def _have(n: int) -> str:
    return f"{n} {'has' if n == 1 else 'have'}"


def _most_often(failures: Sequence[Failure]) -> str:
    """Return the most frequent reason, and how often it was one where it was not the only one."""
    first = failures[0]
    often = "" if len(failures) == 1 else f", {len(first.records)} of them with"
    return f"{often}: {first.reason}"
