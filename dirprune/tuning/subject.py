"""What a study is about, as far as it is known without weights: data, groups, costs, the reference point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dirprune.cost import CostModel, Costs
from dirprune.data import DataRoles
from dirprune.data.streaming import StreamedSplit
from dirprune.evaluation import check_fit, evaluate
from dirprune.groups import Grouping
from dirprune.importance.base import Progress
from dirprune.latency import LatencyModel
from dirprune.networks import load_weights_
from dirprune.study.dense import DataChoice, check_metrics, choose_data, compare_data
from dirprune.study.latency import obtain_latency
from dirprune.study.reference import check_reference
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups
from dirprune.tuning import storage
from dirprune.tuning.cluster import Resources
from dirprune.tuning.measuring import choose_where
from dirprune.tuning.options import RunOptions
from dirprune.uncounted import warn_of_uncounted

N_JUDGED = 500
"""Validation images that tell which metrics an evaluation gives."""


@dataclass(frozen=True)
class Subject:
    """What is studied, as far as it is known without its weights.

    Attributes:
        spec: The study, with all that the data decide.
    """

    spec: StudySpec
    choice: DataChoice
    roles: DataRoles
    grouping: Grouping
    costs: CostModel
    dense_costs: Costs
    reference_point: dict[str, float]
    latency: LatencyModel | None


def find_subject(
    spec: StudySpec,
    options: RunOptions,
    stored: Mapping[str, Any] | None,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> Subject:
    """Load the data and look at the network; neither depends on weights.

    Args:
        spec: The study.
        options: Where data and weights lie.
        stored: What `study.json` holds, where the study exists already.
        say: Takes the lines that a user should read.
        progress: Told how many channel groups are tried out.

    Raises:
        DirpruneError: If the data, the network and the study do not fit each other.
    """
    choice = choose_data(spec, options.weights)
    roles = spec.load_data(options.data, choice.validation_from, choice.seed)
    compared = compare_data(choice, options.weights, roles)
    if compared.validation_from != choice.validation_from:
        roles = spec.load_data(options.data, compared.validation_from, compared.seed)
    choice = compared
    say(f"data: {roles.name}; validation from {choice.validation_from} ({choice.reason})")
    say(
        f"images: {len(roles.train):,} train, {len(roles.validation):,} validation, "
        f"{len(roles.test):,} test; {roles.train.whereabouts}"
    )
    if warning := warn_of_slow_decoding(roles, options.resources):
        say(warning)
    spec = spec.for_classes(roles.n_classes)
    network = spec.create_network().eval()
    if options.weights is not None:
        load_weights_(network, options.weights)
    grouping = find_groups(network, roles.example_input(), progress=progress)
    grouping.check_any()
    spec.space.first_trials(grouping)  # raises where they do not fit the network
    for name, reason in grouping.refused.items():
        say(f"channel group {name} is left whole: {reason}")
    if warning := warn_of_uncounted(network, roles.example_input()):
        say(warning)
    costs = CostModel(network, grouping, roles.example_input())
    # What needs no latency is checked before any is measured, which takes minutes.
    reference_point = _find_reference(spec, roles, costs)
    named = f"network_options={{'n_classes': {roles.n_classes}}}" if isinstance(spec.network, str) else ""
    check_fit(network, roles, spec.task(), hint=named)
    few = roles.validation.subset(torch.arange(min(len(roles.validation), N_JUDGED)))
    check_metrics(spec, evaluate(network, few, roles, spec.task()))
    latency = None
    if spec.needs_latency:
        known = None if stored is None else stored["description"].get("latency")
        measure = choose_where(options.resources)
        latency = obtain_latency(options.latency, known, network, grouping, roles, say, measure)
        costs = costs.with_latency(latency.constant_ms, latency.rates_ms)
        reference_point = _find_reference(spec, roles, costs)
    dense_costs = costs.costs(grouping.n_channels)
    return Subject(spec, choice, roles, grouping, costs, dense_costs, reference_point, latency)


def _find_reference(spec: StudySpec, roles: DataRoles, costs: CostModel) -> dict[str, float]:
    """Return the hypervolume's reference point, without a latency that is neither given nor known yet.

    Raises:
        ConfigurationError: If nothing in the space is better than it or within the limits, as far as the
            costs are known.
    """
    dense = costs.costs(costs.n_channels).as_dict()
    lowest = costs.costs(spec.space.lowest_widths(costs)).as_dict()
    spec.space.shapes(costs, {metric: limit for metric, limit in spec.limits.items() if metric in dense})
    reference_point = spec.resolve_reference(roles, dense)
    objectives = [objective for objective in spec.objectives if objective.metric in reference_point]
    check_reference(objectives, reference_point, dense, lowest)
    return reference_point


def warn_of_slow_decoding(roles: DataRoles, resources: Resources) -> str | None:
    """Return a warning where a single process decodes streamed images for each GPU, which waits for them.

    Args:
        roles: The data.
        resources: What each trial has; without a number of GPUs, one where there are any.
    """
    gpus = resources.gpus_per_trial
    has_gpu = torch.cuda.is_available() if gpus is None else gpus > 0
    if not (isinstance(roles.train, StreamedSplit) and has_gpu and resources.threads == 1):
        return None
    return (
        "WARNING: one process decodes the streamed images of each GPU, which will mostly wait for it; "
        "try a larger --cpus-per-trial"
    )


def describe_subject(spec: StudySpec, subject: Subject) -> dict[str, Any]:
    """Return everything but the weights that must be the same for a study to go on, as JSON gives it back."""
    roles = subject.roles
    description = spec.describe()
    description["data"] |= {
        "name": roles.name,
        "fingerprint": roles.fingerprint(),
        "validation_from": subject.choice.validation_from,
    }
    description |= {"groups": subject.grouping.n_channels, "reference_point": subject.reference_point}
    if subject.latency is not None:
        description["latency"] = subject.latency.to_json()
    return storage.plain(description)
