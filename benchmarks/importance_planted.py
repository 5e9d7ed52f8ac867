"""Which posteriors find pairs of channels that were planted in a trained LeNet-5."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import click
import torch
from importance_common import Setting, Subject, load_lenets
from torch import Tensor, nn

from dirprune.groups import ChannelGroup
from dirprune.importance import ScoringContext, compute_scores, create
from dirprune.importance.simplex.covariances import GroupCovariances, compute_covariances
from dirprune.importance.simplex.laplace import compute_laplace_covariances

SEEDS = (0, 1, 2)
CHOOSING_IMAGES = 1000
FITTED: dict[str, tuple[str, dict[str, Any]]] = {
    "generalized-dirichlet": ("generalized-dirichlet", {}),
    "generalized-dirichlet, 300 steps": ("generalized-dirichlet", {"steps": 300}),
    "logistic-normal": ("logistic-normal", {}),
    "logistic-normal, 300 steps at 0.05, rank 4": ("logistic-normal", {"steps": 300, "lr": 0.05, "rank": 4}),
    "logistic-normal, 1,000 steps at 0.03, rank 4": (
        "logistic-normal",
        {"steps": 1000, "lr": 0.03, "rank": 4},
    ),
}
LAPLACE = "laplace"


@dataclass(frozen=True)
class Planted:
    """A network with two pairs planted in one of its groups.

    Attributes:
        network: In evaluation mode.
        together: Two channels of equal outputs and opposite weights behind them: they cancel, so that to
            remove one costs much and to remove both nothing.
        substitutes: Two channels of equal outputs that share the weights of one: either can stand in.
    """

    network: nn.Module
    together: tuple[int, int]
    substitutes: tuple[int, int]


def plant(network: nn.Module, group: ChannelGroup, importance: Tensor, strength: float = 1.0) -> Planted:
    """Plant both pairs in the three channels that matter least, as copies of the two that matter most.

    Args:
        network: Is left as it is.
        group: Its channels are those of whole modules, one after the other.
        importance: Of each channel, (n_channels,).
        strength: Of the weights behind the pair that cancels, in those of the channel that it is copied from.
    """
    order = importance.argsort().tolist()
    double, first, second, cancelled, split = *order[:3], *order[-2:]
    network = copy.deepcopy(network)
    with torch.no_grad():
        for slot in group.producers:
            module = network.get_submodule(slot.module)
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.ndim:
                    tensor[[double, first, second]] = tensor[[split, cancelled, cancelled]]
        for slot in group.consumers:
            weight = network.get_submodule(slot.module).get_parameter("weight")
            inputs = {
                channel: (torch.tensor(slot.channel_of) == channel).nonzero().ravel() for channel in order
            }
            weight[:, inputs[first]] = strength * weight[:, inputs[cancelled]]
            weight[:, inputs[second]] = -weight[:, inputs[first]]
            weight[:, inputs[split]] /= 2
            weight[:, inputs[double]] = weight[:, inputs[split]]
    return Planted(network.eval(), _ordered(first, second), _ordered(double, split))


def _ordered(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


@click.command("planted-pairs")
@click.option("--groups", default="conv1,conv2,linear1,linear2", show_default=True)
@click.option("--images", default=5000, help="Calibration images.")
@click.option("--strength", default=1.0, help="Of the weights of the pair that cancels.")
@click.option("--posteriors", help="Labels, separated by semicolons; all by default.")
@click.pass_obj
def planted_pairs(
    setting: Setting, groups: str, images: int, strength: float, posteriors: str | None
) -> None:
    """Plant pairs in trained LeNet-5s, and look where each posterior has them among all pairs."""
    rows = setting.rows("planted-pairs")
    quick = setting.is_quick
    images = 100 if quick else images
    labels = posteriors.split(";") if posteriors else [LAPLACE, *([] if quick else FITTED)]
    for subject in load_lenets(setting)[: 1 if quick else None]:
        importance = compute_scores(create("leave-one-out"), subject.context(min(images, CHOOSING_IMAGES)))
        for group in subject.grouping.groups:
            if group.name not in groups.split(","):
                continue
            planted = plant(subject.network, group, importance[group.name], strength)
            context = dataclasses.replace(subject, network=planted.network).context(images)
            for label in labels:
                key = {"subject": subject.name, "group": group.name, "n_images": images}
                key |= {"strength": strength, "posterior": label}
                if not rows.is_done(**key):
                    found = _fit(label, context)[group.name]
                    rows.add(key, _judge(subject, planted, found))
                    click.echo(f"{subject.name} {group.name}, {label}: {rows.select(**key)[0]['ranks']}")


def _fit(label: str, context: ScoringContext) -> dict[str, GroupCovariances]:
    if label == LAPLACE:
        return compute_laplace_covariances(context, len(SEEDS))
    name, options = FITTED[label]
    return compute_covariances(create(name, options), context, SEEDS)


def _judge(subject: Subject, planted: Planted, found: GroupCovariances) -> dict[str, Any]:
    """Return where the pairs stand among all, 1 is outermost, and their excess with each seed."""
    excess = found.relative(found.excess())
    rows, columns = torch.triu_indices(excess.shape[1], excess.shape[1], 1)
    ranks, excesses = {}, {}
    for name, (i, j), sign in (("together", planted.together, 1), ("substitutes", planted.substitutes, -1)):
        excesses[name] = excess[:, i, j].tolist()
        mean = sign * excess.mean(0)
        ranks[name] = 1 + int((mean[rows, columns] > mean[i, j]).sum())
    return {
        "n_pairs": len(rows),
        "ranks": ranks,
        "excess": excesses,
        "accuracy": subject.measure_test_accuracy(subject.network),
        "planted_accuracy": subject.measure_test_accuracy(planted.network),
    }
