"""How near estimates of Shapley values come to exact ones, and what the reference's whole ranking takes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import click
import numpy as np
import torch
from importance_common import LONG_RUN, Rows, Setting, Subject, load_lenets, measure_seconds, to_list
from importance_methods import Variant
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from dirprune.errors import ImportanceError
from dirprune.groups import Grouping
from dirprune.importance import ScoringContext, compute_scores, create, list_methods
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.shapley import Estimate, ShapleyScorer

Numbers = NDArray[np.float64]
LARGEST_EXACT = 20
BUDGETS = (30, 60, 102, 202, 500, 2000)  # 102 and 202 are the least that some take for 100 channels
N_REFERENCE_IMAGES = 6000
N_REFERENCE_COALITIONS = 30
REFERENCE_LAYERS = ("conv1", "conv2", "linear1", "linear2")
CHUNK = 1 << 15


def compute_exact(values: CoalitionValues) -> Numbers:
    """Return exact Shapley values from all 2 ** n_channels coalitions, shape (n_channels,).

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S)) [Shapley 1953]
    """
    n = values.n_channels
    numbers = np.arange(2**n)
    bits = 1 << np.arange(n)
    worth = np.concatenate(
        [
            values.evaluate((numbers[start : start + CHUNK, None] & bits) != 0)
            for start in range(0, len(numbers), CHUNK)
        ]
    )
    size = sum((numbers >> place) & 1 for place in range(n))
    weight = np.array([1 / (n * math.comb(n - 1, k)) for k in range(n)])
    exact = np.empty(n)
    for place in range(n):
        without = numbers[(numbers & bits[place]) == 0]
        exact[place] = weight[size[without]] @ (worth[without | bits[place]] - worth[without])
    return exact


def run_permutations(values: CoalitionValues, n_evaluations: int, seed: int = 0) -> tuple[Numbers, Numbers]:
    """Estimate Shapley values from random orders of the channels, each followed by its reverse.

    Returns:
        Values and their standard errors, each of shape (n_channels,).
    """
    n = values.n_channels
    rng = np.random.default_rng(seed)
    nothing, everything = values.evaluate(np.array([[False] * n, [True] * n]))
    n_pairs = max(2, n_evaluations // (2 * (n - 1)))
    n_at_once = max(1, CHUNK // (2 * n))
    gains = []
    for start in range(0, n_pairs, n_at_once):
        orders = np.array([rng.permutation(n) for _ in range(min(n_at_once, n_pairs - start))])
        orders = np.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, n)
        ranks = np.argsort(orders, axis=1)
        present = ranks[:, None, :] < np.arange(1, n)[None, :, None]  # (orders, n - 1, channels)
        worth = values.evaluate(present.reshape(-1, n)).reshape(len(orders), n - 1)
        ends = np.full((len(orders), 1), nothing), np.full((len(orders), 1), everything)
        steps = np.diff(np.concatenate([ends[0], worth, ends[1]], axis=1), axis=1)
        of_channel = np.take_along_axis(steps, ranks, axis=1)
        gains.append(of_channel.reshape(-1, 2, n).mean(1))
    pairs = np.concatenate(gains)
    return pairs.mean(0), pairs.std(0, ddof=1) / math.sqrt(len(pairs))


def compare(estimate: Numbers, truth: Numbers) -> dict[str, float]:
    """Return root mean square error, Spearman's rank correlation, and the share of the best half found."""
    n_kept = len(truth) // 2
    best, found = (set(np.argsort(-values, kind="stable")[:n_kept]) for values in (truth, estimate))
    return {
        "rmse": float(np.sqrt(np.mean((estimate - truth) ** 2))),
        "spearman": float(spearmanr(truth, estimate).statistic),
        "overlap": len(best & found) / n_kept,
    }


def measure_coverage(estimate: Estimate, truth: Numbers) -> float | None:
    """Return the share of channels whose 95% interval holds the true value; None without intervals."""
    if estimate.half_widths is None:
        return None
    rounding = 1e-6 * np.abs(truth).max()  # of exact values, whose intervals have no width
    return float(np.mean(np.abs(estimate.values - truth) <= estimate.half_widths + rounding))


def count_for_truth(n_channels: int, long_run: int, largest_exact: int) -> int:
    """Return how many coalitions tell the true values of so many channels."""
    return 2**n_channels if n_channels <= largest_exact else long_run


def name_truth(n_channels: int, long_run: int, largest_exact: int) -> dict[str, int]:
    """Return what tells rows apart by their truth; nothing of the usual one, as in older rows."""
    truth = count_for_truth(n_channels, long_run, largest_exact)
    return {} if truth == count_for_truth(n_channels, LONG_RUN, LARGEST_EXACT) else {"truth": truth}


def find_truth(
    setting: Setting,
    subject: Subject,
    n_images: int,
    n_evaluations: int,
    value: str,
    largest_exact: int,
) -> dict[str, Numbers]:
    """Return the Shapley values of every group: exact up to so many channels, else a long permutation run."""
    rows = setting.rows("truth")
    context = subject.context(n_images)
    truth = {}
    for group in subject.grouping.groups:
        is_exact = group.n_channels <= largest_exact
        key = {
            "subject": subject.name,
            "group": group.name,
            "n_images": n_images,
            "value": value,
            "n_evaluations": count_for_truth(group.n_channels, n_evaluations, largest_exact),
        }
        if not rows.is_done(**key):
            values = open_values(context, group.name, value=value, is_stored=False)
            click.echo(f"{subject.name} {group.name}: {key['n_evaluations']:,} coalitions", err=True)
            errors = np.zeros(group.n_channels)
            if is_exact:
                found = compute_exact(values)
            else:
                found, errors = run_permutations(values, n_evaluations)
            rows.add(key, {"values": found.tolist(), "standard_errors": errors.tolist()})
        truth[group.name] = np.array(rows.select(**key)[0]["values"])
    return truth


@click.command("shapley-error")
@click.option("--images", default=1000, help="Calibration images, the same for truth and estimates.")
@click.option("--seeds", default=5)
@click.option("--long-run", default=LONG_RUN, help="Evaluations of a permutation run that stands for exact.")
@click.option("--exact-up-to", default=LARGEST_EXACT, help="Channels of a group; 25 take 2 GB and minutes.")
@click.option("--groups", help="Groups of LeNet-5, separated by commas; all by default.")
@click.pass_obj
def shapley_error(
    setting: Setting, images: int, seeds: int, long_run: int, exact_up_to: int, groups: str | None
) -> None:
    """Error of every Shapley method by budget, beside the shap library, against exact values."""
    quick = setting.is_quick
    if quick:
        images, seeds, long_run, exact_up_to = 100, 1, 2000, 10
    for loaded in load_lenets(setting)[: 1 if quick else None]:
        wanted = loaded.grouping.names if groups is None else groups.split(",")
        subject = dataclasses.replace(
            loaded, grouping=Grouping(tuple(loaded.grouping[name] for name in wanted))
        )
        truth = find_truth(setting, subject, images, long_run, "loss", exact_up_to)
        for group in subject.grouping.groups:
            alone = dataclasses.replace(subject, grouping=Grouping((group,)))
            for variant, n_evaluations in list_estimators(group.n_channels, BUDGETS[: 2 if quick else None]):
                for seed in range(seeds if variant.is_stochastic else 1):
                    key = {
                        "subject": subject.name,
                        "group": group.name,
                        "method": variant.label,
                        "evaluations": n_evaluations,
                        "seed": seed,
                        "n_images": images,
                        **name_truth(group.n_channels, long_run, exact_up_to),
                    }
                    if not _estimate(setting.rows("shapley-error"), key, variant, alone, truth[group.name]):
                        break


def list_estimators(n_channels: int, budgets: Sequence[int]) -> Iterator[tuple[Variant, int]]:
    """Yield what estimates the values of so many channels, and the coalitions that it evaluates."""
    named = {"shapley-exact", "shapley-partial", "shapley-shap"}
    sampled = [Variant(name, name) for name in list_methods("shapley*") if name not in named]
    if "shapley-shap" in list_methods():
        sampled += [
            Variant(f"shap, {explainer}", "shapley-shap", {"explainer": explainer})
            for explainer in ("kernel", "permutation")
        ]
    for variant, budget in itertools.product(sampled, budgets):
        yield dataclasses.replace(variant, options={**variant.options, "evaluations": budget}), budget
    for k in (1, 2) if "shapley-partial" in list_methods() else ():
        n_evaluations = 2 + 2 * sum(math.comb(n_channels, size) for size in range(1, k + 1))
        yield Variant(f"shapley-partial, k={k}", "shapley-partial", {"k": k}), n_evaluations


def _estimate(rows: Rows, key: dict[str, Any], variant: Variant, alone: Subject, truth: Numbers) -> bool:
    """Score one group; return whether the method can use the budget, and say so if not."""
    if rows.is_done(**key):
        return True
    (group,) = alone.grouping.names
    found: dict[str, Tensor] = {}
    context = alone.context(key["n_images"], key["seed"])
    try:
        method = create(variant.method, variant.options)
        seconds = measure_seconds(lambda: found.update(compute_scores(method, context)))
    except ImportanceError as error:
        click.echo(f"left out {variant.label}, {key['evaluations']} evaluations, {group}: {error}", err=True)
        return False
    errors = compare(found[group].numpy(), truth)
    assert isinstance(method, ShapleyScorer)
    assert method.estimates is not None
    covered = measure_coverage(method.estimates[group], truth)
    rows.add(key, {**errors, "covered": covered, "seconds": seconds})
    click.echo(f"{variant.label}, {key['evaluations']}, {group}: Spearman {errors['spearman']:.2f}")
    return True


def _rank(variant: Variant, context: ScoringContext) -> dict[str, Tensor]:
    return compute_scores(create(variant.method, variant.options), context)


@torch.no_grad()
def rank_as_reference(network: nn.Module, inputs: Tensor, targets: Tensor, seed: int) -> dict[str, Tensor]:
    """Rank every layer as the reference does: the whole network over all images for every coalition.

    Random subsets of uniformly random size, accuracy with the weights and biases of the absent channels set
    to zero, and an ordinary least-squares fit; a channel's score is its coefficient.
    """
    rng = np.random.default_rng(seed)
    scores = {}
    for name in REFERENCE_LAYERS:
        layer = network.get_submodule(name)
        weight, bias = layer.weight.clone(), layer.bias.clone()
        n = len(weight)
        design, accuracies = [], []
        for _ in range(N_REFERENCE_COALITIONS):
            absent = rng.permutation(n)[: rng.integers(1, n)]
            layer.weight[absent] = 0
            layer.bias[absent] = 0
            n_right = 0
            for images, labels in zip(inputs.split(500), targets.split(500), strict=True):
                n_right += int((network(images).argmax(1) == labels).sum())
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
            design.append([*np.isin(np.arange(n), absent, invert=True), 1.0])
            accuracies.append(n_right / len(targets))
        fitted, *_ = np.linalg.lstsq(np.array(design, float), np.array(accuracies), rcond=None)
        scores[name] = torch.from_numpy(fitted[:-1])
    return scores


@click.command("reference-ranking")
@click.option("--repetitions", default=5, help="Each with a seed of its own, both sides in turns.")
@click.option("--images", default="500,1000,2000", help="Calibration images of ours, several.")
@click.option("--evaluations", default="102,202,default", help="Budgets of ours, several.")
@click.option("--truth-images", default=5000)
@click.option("--long-run", default=LONG_RUN, help="Evaluations of a permutation run that stands for exact.")
@click.pass_obj
def reference_ranking(
    setting: Setting, repetitions: int, images: str, evaluations: str, truth_images: int, long_run: int
) -> None:
    """The reference's whole ranking of LeNet-5 against ours: seconds, and agreement with exact values.

    The agreement is with exact values of the loss and, since the reference scores accuracy, of accuracy too.
    """
    rows = setting.rows("reference-ranking")
    quick = setting.is_quick
    if quick:
        repetitions, images, evaluations, truth_images, long_run = 1, "100", "102", 100, 2000
    largest_exact = 10 if quick else LARGEST_EXACT
    ours = [
        (Variant(f"shapley, {budget} evaluations", "shapley", {"evaluations": budget}), int(n_images))
        for n_images, budget in itertools.product(images.split(","), evaluations.split(","))
    ]
    ours += [(Variant("shapley-partial, k=1", "shapley-partial"), int(n)) for n in images.split(",")]
    subject = load_lenets(setting)[0]
    truths = {
        value: find_truth(setting, subject, truth_images, long_run, value, largest_exact)
        for value in ("loss", "accuracy")
    }
    train = subject.roles.train
    for seed in range(repetitions):
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        seen = train.subset(drawn[: 500 if quick else N_REFERENCE_IMAGES])
        inputs = subject.roles.normalise(seen.inputs).to(setting.device)
        targets = seen.targets.to(setting.device)

        def run_reference(inputs: Tensor = inputs, targets: Tensor = targets, seed: int = seed) -> dict:
            return rank_as_reference(subject.network, inputs, targets, seed)

        sides: dict[str, Callable[[], dict]] = {"reference": run_reference}
        for variant, n_images in ours:
            sides[f"{variant.label}, {n_images} images"] = partial(
                _rank, variant, subject.context(n_images, seed)
            )
        for side, run in sides.items():
            key = {"subject": subject.name, "side": side, "seed": seed}
            key |= {"truth_images": truth_images, "long_run": long_run}
            if rows.is_done(**key):
                continue
            found: dict[str, Tensor] = {}
            try:
                seconds = measure_seconds(lambda run=run, found=found: found.update(run()))
            except ImportanceError as error:
                click.echo(f"left out {side}: {error}", err=True)
                continue
            spearman = {
                value: {g: compare(found[g].numpy(), truth[g])["spearman"] for g in truth}
                for value, truth in truths.items()
            }
            scores = {group: to_list(values) for group, values in found.items()}
            rows.add(key, {"seconds": seconds, "spearman": spearman, "scores": scores})
            click.echo(f"{side}: {seconds:.2f} s")
