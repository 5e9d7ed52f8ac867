"""Whether studies may be compared, and what else than the methods may make them differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, zip_longest
from typing import Any

from dirprune.cost import COST_METRICS, LATENCY
from dirprune.errors import StudyError
from dirprune.records.comparison import By, ComparedStudy
from dirprune.records.formatting import format_metric
from dirprune.study.difference import complete, find_differences, find_part

REFUSED = ("network", "groups", "objectives", "evaluation", "data")
"""Parts of a description that must be the same; the first one that is not is named."""
NOT_COMPARED = ("seed", "final_fine_tuning", "latency", "weights", "space.methods", "space.own_methods")
"""What repetitions differ in, what the search does not see, and what has a word of its own."""
FINGERPRINT = "data.fingerprint"
"""What data are, wherever they come from."""
N_LABELS, N_LETTERS, N_BEFORE = 3, 60, 20


def check_comparable(studies: Sequence[ComparedStudy]) -> None:
    """Return when studies are of the same network, data and objectives, and no two are the same study.

    Raises:
        StudyError: If not; says what the first difference is.
    """
    known: dict[str, ComparedStudy] = {}
    for study in studies:
        other = known.setdefault(study.summary.study_id, study)
        if other is not study:
            raise StudyError(
                f"expected each study once, got {other.label} and {study.label}, which are the same one; "
                "leave one of them out"
            )
    pairs = _find_differences(studies)
    for part in REFUSED:
        for one, other, keys in pairs:
            differing = [key for key in keys if key.partition(".")[0] == part]
            if differing and (part != "data" or FINGERPRINT in differing):
                raise StudyError(_refuse(one, other, differing))
    first, *others = studies
    for other in others:
        for metric in COST_METRICS:
            counts = [(study.summary.dense_costs.get(metric, 0.0), study.label) for study in (first, other)]
            if counts[0][0] != counts[1][0]:
                told = " and ".join(f"{format_metric(metric, count)} in {label}" for count, label in counts)
                raise StudyError(
                    f"expected studies that count the dense network's costs alike, got {metric} {told}; run "
                    "those of an earlier version again"
                )
    if LATENCY in [objective.metric for objective in first.summary.objectives]:
        for other in others:
            if first.description.get("latency") != other.description.get("latency"):
                raise StudyError(
                    f"expected studies of one model of latency, got two in {first.label} and {other.label}; "
                    "give all studies the same --latency FILE"
                )


def find_warnings(studies: Sequence[ComparedStudy], by: By = "methods") -> list[str]:
    """Return one line for each thing beside the groups by which the results may differ."""
    return [
        *_warn_of_dense(studies),
        *_warn_of_descriptions(studies),
        *_warn_of_options(studies),
        *_warn_of_latency(studies),
        *_warn_of_margins(studies),
        *(_warn_of_seeds(studies) if by == "methods" else []),
        *_warn_of_samplers(studies),
        *_warn_of_trials(studies),
        *_warn_of_unfinished(studies),
    ]


def _find_differences(
    studies: Sequence[ComparedStudy],
) -> list[tuple[ComparedStudy, ComparedStudy, list[str]]]:
    """Return every two studies with what differs between them, whichever is taken for the stored one."""
    described = [(study, complete(study.description)) for study in studies]
    return [
        (one, other, sorted({*find_differences(first, second)} & {*find_differences(second, first)}))
        for (one, first), (other, second) in combinations(described, 2)
    ]


def _refuse(first: ComparedStudy, other: ComparedStudy, differing: Sequence[str]) -> str:
    part = differing[0].partition(".")[0]
    if part == "data" and "data.name" not in differing:
        return (
            f"expected studies of the same images, cut alike, got others in {other.label} than in "
            f"{first.label}; give all studies the same --weights FILE, which says how images are cut"
        )
    key = "data.name" if "data.name" in differing else part
    descriptions = (first.description, other.description)
    one, two = _describe_apart([find_part(description, key) for description in descriptions])
    if part == "groups" or one == two:  # groups may be many, and other code may have the same name
        name = differing[0].partition(".")[2]
        one, two = (f"{name}={_describe(find_part(each, differing[0]))}" for each in descriptions)
    what = {"data.name": "data set", "groups": "set of channel groups", "objectives": "set of objectives"}
    return (
        f"expected studies of one {what.get(key, part)}, got {one} in {first.label} and {two} in "
        f"{other.label}; compare those that share it"
    )


def _warn_of_dense(studies: Sequence[ComparedStudy]) -> list[str]:
    judged = [o.metric for o in studies[0].summary.objectives if o.metric.startswith("val_")][:1]
    metrics = [name for metric in judged for name in (metric, metric.replace("val_", "test_", 1))]
    told = []
    for study in studies:
        known = [f"{m} {format_metric(m, study.dense[m])}" for m in metrics if m in study.dense]
        digest = str(study.description.get("weights"))[:8]
        told.append((" ".join([digest, ", ".join(known) or "not judged"]), study.label))
    if len({study.description.get("weights") for study in studies}) < 2:
        return []
    return [f"the dense networks differ: {_gather(told)}; results differ by them, too"]


def _warn_of_descriptions(studies: Sequence[ComparedStudy]) -> list[str]:
    keys = {key for _, _, differing in _find_differences(studies) for key in differing}
    described = [(complete(study.description), study.label) for study in studies]
    return [
        f"the studies differ in {key}: "
        + _gather_values([(find_part(description, key), label) for description, label in described])
        for key in sorted(keys - set(NOT_COMPARED))
        if key.partition(".")[0] not in (*REFUSED, *NOT_COMPARED)
    ]


def _warn_of_options(studies: Sequence[ComparedStudy]) -> list[str]:
    """Warn of a method whose own options some studies search in another range, or whose code is another."""
    lines = []
    for what, part in (("options", "methods"), ("code", "own_methods")):
        named = [(study.description["space"].get(part, {}), study.label) for study in studies]
        for method in sorted({method for methods, _ in named for method in methods}):
            told = [(methods[method], label) for methods, label in named if method in methods]
            if any(value != told[0][0] for value, _ in told):
                lines.append(f"the studies differ in the {what} of {method}: {_gather_values(told)}")
    return lines


def _warn_of_latency(studies: Sequence[ComparedStudy]) -> list[str]:
    """Warn of different models where latency is limited; where it is an objective they are refused."""
    models = [
        (study.description["latency"], study.label) for study in studies if "latency" in study.description
    ]
    told = [("one" if model == models[0][0] else "others", label) for model, label in models]
    if len({text for text, _ in told}) < 2:
        return []
    return [
        f"the studies limit latency by different models: {_gather(told)}; give all the same --latency FILE"
    ]


def _warn_of_margins(studies: Sequence[ComparedStudy]) -> list[str]:
    """Warn of objectives whose values have an error, which budgets do not know of."""
    return [
        f"{objective.metric} is modelled, within {100 * objective.margin:.2g}%: networks that differ by as "
        "little say nothing, and a budget may be missed by it"
        for objective in studies[0].summary.objectives
        if objective.margin
    ]


def _warn_of_seeds(studies: Sequence[ComparedStudy]) -> list[str]:
    counted = Counter((study.methods, study.summary.seed) for study in studies)
    return [
        f"group {methods} has {n} studies of seed {seed}, which are no repetitions by seed and make one pair"
        for (methods, seed), n in counted.items()
        if n > 1
    ]


def _warn_of_samplers(studies: Sequence[ComparedStudy]) -> list[str]:
    told = [("+".join(sorted(study.samplers)), study.label) for study in studies]
    if len({names for names, _ in told}) < 2:
        return []
    differ = "differ" if len({names for names, _ in told if names}) > 1 else "may differ"
    gathered = _gather((names or "not known, of an earlier version", label) for names, label in told)
    return [f"the studies {differ} in samplers: {gathered}"]


def _warn_of_trials(studies: Sequence[ComparedStudy]) -> list[str]:
    told = [(f"{len(study.records):,}", study.label) for study in studies]
    if len({n for n, _ in told}) < 2:
        return []
    return [f"the studies differ in trials started: {_gather(told)}; a hypervolume grows with them"]


def _warn_of_unfinished(studies: Sequence[ComparedStudy]) -> list[str]:
    told = []
    for study in studies:
        n_open = study.count("RUNNING")
        if n_open:
            told.append((f"{n_open} of {len(study.records)} trials have not ended", study.label))
        elif study.ending:
            told.append((study.ending, study.label))
        elif study.ending is None:
            told.append(("the last run is at work, was killed, or was of an earlier version", study.label))
    return [f"unfinished studies: {_gather(told)}; go on with --resume first"] if told else []


def _gather(told: Iterable[tuple[str, str]]) -> str:
    """Return each text once, with the labels of the studies of which it is true."""
    gathered: dict[str, list[str]] = {}
    for text, label in told:
        gathered.setdefault(text, []).append(label)
    return "; ".join(f"{text} ({_list(labels)})" for text, labels in gathered.items())


def _list(labels: Sequence[str]) -> str:
    more = len(labels) - N_LABELS
    return ", ".join(labels[:N_LABELS]) + (f" and {more} more" if more > 0 else "")


def _gather_values(told: Sequence[tuple[Any, str]]) -> str:
    texts = _describe_apart([value for value, _ in told])
    return _gather(zip(texts, (label for _, label in told), strict=True))


def _describe_apart(values: Sequence[Any]) -> list[str]:
    """Describe values, long ones from a little before where they differ."""
    texts = [_describe(value) for value in values]
    if max(map(len, texts)) <= N_LETTERS:
        return texts
    differing = (place for place, letters in enumerate(zip_longest(*texts)) if len(set(letters)) > 1)
    start = max(0, next(differing, 0) - N_BEFORE)
    cut = [text[start : start + N_LETTERS] for text in texts]
    return [
        f"{'...' * (start > 0)}{shown}{'...' * (start + len(shown) < len(text))}"
        for shown, text in zip(cut, texts, strict=True)
    ]


def _describe(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        options = value.get("options") or {}
        return f"{value['name']}{f' with {json.dumps(options)}' if options else ''}"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
