"""How good networks are that different scores prune: right away, after recalibration, after fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import click
from importance_annealed import find_annealed
from importance_common import (
    Rows,
    Setting,
    Subject,
    draw_architectures,
    load_cifar_subject,
    load_lenets,
    measure_seconds,
)
from importance_methods import Variant, find_variants

from dirprune.architecture import Architecture
from dirprune.errors import ImportanceError
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext, compute_scores, create, keep_best
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR_FINE_TUNING
from dirprune.reconstruction import N_IMAGES, reconstruct_
from dirprune.tasks import make_task
from dirprune.training import train_

REFERENCE = ("8-20-50-20", "8-9-36-17", "7-10-40-20", "6-7-34-16")
KEEP_RATIOS = (0.75, 0.5, 0.25)
LAWS = ((0.3, 0.9), (0.1, 0.9))
"""Keep ratios between which random architectures are drawn, mild and harsh."""
N_SEEDS = 5
FINE_TUNED = "random;magnitude L1;fisher;dirichlet, integral;shapley, loss;greedy, loss"
N_STEPS = 300
REPAIRS = ("recalibrated", "reconstructed")


def list_architectures(subject: Subject, is_quick: bool) -> Iterator[tuple[str, Architecture]]:
    """Yield sets and their architectures: random ones, and the reference's or uniform keep ratios."""
    n_random = 2 if is_quick else 24
    for least, most in LAWS if subject.is_lenet else LAWS[:1]:
        for architecture in draw_architectures(subject.grouping, n_random, least, most):
            yield f"{n_random} random, {least:g} to {most:g}", architecture
    yield from list_fixed_architectures(subject, is_quick)


def list_fixed_architectures(subject: Subject, is_quick: bool) -> Iterator[tuple[str, Architecture]]:
    """Yield the sets that are not drawn, and their architectures: the reference's, or uniform keep ratios."""
    if subject.is_lenet:
        for text in REFERENCE[: 1 if is_quick else None]:
            yield "the reference's 4", Architecture.parse(text, subject.grouping)
    else:
        for ratio in KEEP_RATIOS[: 1 if is_quick else None]:
            yield f"keep {ratio:g}", Architecture.uniform(subject.grouping, ratio)


def check_sets(sets: str, known: Sequence[str]) -> None:
    """Raise BadParameter if the name of no set of architectures begins so."""
    if not any(name.startswith(sets) for name in known):
        names = "; ".join(dict.fromkeys(known))
        raise click.BadParameter(
            f"expected the beginning of a set of architectures, got {sets!r}; try one of: {names}",
            param_hint="--sets",
        )


@click.command("after-pruning")
@click.option("--methods", help="Labels or names, separated by semicolons; all by default.")
@click.option("--images", default=1000, help="Calibration images that scores may see.")
@click.option("--subjects", default="lenet5,resnet20", help="lenet5, resnet20, resnet56.")
@click.option("--seeds", default=N_SEEDS, help="Of methods that have one.")
@click.option("--sets", default="", help="Only sets of architectures whose names begin so, such as keep.")
@click.option("--repairs", default=",".join(REPAIRS), show_default=True, help="What comes after the cut.")
@click.pass_obj
def after_pruning(
    setting: Setting, methods: str | None, images: int, subjects: str, seeds: int, sets: str, repairs: str
) -> None:
    """Test accuracy right after pruning, after batch-norm recalibration, and after reconstruction instead."""
    rows = setting.rows("after-pruning")
    variants = [*find_annealed(methods), *find_variants(methods)]
    cache = ScoreCache(setting.output / "scores")
    images, seeds = (100, 1) if setting.is_quick else (images, seeds)
    known: list[str] = []
    for kind in subjects.split(","):
        loaded = load_lenets(setting) if kind == "lenet5" else [load_cifar_subject(kind, setting)]
        known += [name for name, _ in list_architectures(loaded[0], setting.is_quick)]
        for subject in (subject for subject in loaded if subject.is_trained):
            dense = subject.measure_test_accuracy(subject.network)
            for variant in variants:
                for seed in range(seeds if variant.is_stochastic else 1):
                    asked = repairs.split(",")
                    _prune_all(rows, setting, subject, variant, seed, images, cache, dense, sets, asked)
    check_sets(sets, known)


def _prune_all(
    rows: Rows,
    setting: Setting,
    subject: Subject,
    variant: Variant,
    seed: int,
    n_images: int,
    cache: ScoreCache,
    dense: float,
    sets: str,
    repairs: Collection[str],
) -> None:
    """Prune to every architecture with one method and seed."""
    context = subject.context(n_images, seed)
    accuracies = []
    for name, architecture in list_architectures(subject, setting.is_quick):
        key = {
            "subject": subject.name,
            "variant": variant.label,
            "seed": seed,
            "set": name,
            "architecture": str(architecture),
            "n_images": n_images,
        }
        if set(repairs) != set(REPAIRS):
            key["repairs"] = sorted(repairs)
        if rows.is_done(**key) or not name.startswith(sets):
            continue
        try:
            selection = variant.select(context, architecture, cache)
        except ImportanceError as error:
            click.echo(f"left out {variant.label} on {subject.name}: {error}", err=True)
            return
        smaller = subject.cut(selection.kept)
        found = {"before": subject.measure_test_accuracy(smaller)}
        if "recalibrated" in repairs:
            subject.recalibrate_(smaller)
            found["after"] = subject.measure_test_accuracy(smaller)
            accuracies.append(found["after"])
        if "reconstructed" in repairs:
            refitted = subject.cut(selection.kept)
            reconstruct_(refitted, subject.context(N_IMAGES), selection.kept)
            found["reconstructed"] = subject.measure_test_accuracy(refitted)
        seconds = None if selection.was_cached else selection.wall_time_s
        rows.add(key, {**found, "dense": dense, "scoring_s": seconds})
    if accuracies:
        click.echo(f"{subject.name}, {variant.label}, seed {seed}: {100 * statistics.fmean(accuracies):.1f}%")


@click.command("after-fine-tuning")
@click.option("--methods", default=FINE_TUNED, show_default=True)
@click.option("--images", default=1000, help="Calibration images that scores may see.")
@click.option("--subjects", default="lenet5", help="lenet5 (the first one), resnet20, resnet56.")
@click.option("--seeds", default=3)
@click.option("--sets", default="", help="Only sets of architectures whose names begin so, such as keep.")
@click.option("--repairs", default=",".join(REPAIRS), show_default=True, help="What comes before training.")
@click.pass_obj
def after_fine_tuning(
    setting: Setting, methods: str, images: int, subjects: str, seeds: int, sets: str, repairs: str
) -> None:
    """Test accuracy after the same 300 steps of fine-tuning, by the studies' recipes without a teacher."""
    rows = setting.rows("after-fine-tuning")
    quick = setting.is_quick
    cache = ScoreCache(setting.output / "scores")
    variants = find_variants(methods)[: 2 if quick else None]
    known: list[str] = []
    for kind in subjects.split(","):
        subject = load_lenets(setting)[0] if kind == "lenet5" else load_cifar_subject(kind, setting)
        recipe = replace(
            Recipe(images=0) if subject.is_lenet else replace(CIFAR_FINE_TUNING, distillation=0.0),
            images=128 * (5 if quick else N_STEPS),
            batch_size=128,
        )
        named = list(list_fixed_architectures(subject, quick))
        known += [name for name, _ in named]
        asked = [each for name, each in named if name.startswith(sets)]
        for architecture, variant in product(asked, variants):
            for seed, repair in product(range(1 if quick else seeds), repairs.split(",")):
                key = {"variant": variant.label, "seed": seed, "architecture": str(architecture)}
                key |= {"repair": repair, "subject": subject.name, "n_images": images}
                if rows.is_done(**key):
                    continue
                context = subject.context(images, seed if variant.is_stochastic else 0)
                kept = variant.select(context, architecture, cache).kept
                rows.add(key, _fine_tune(subject, kept, repair, recipe, seed))
    check_sets(sets, known)


def _fine_tune(
    subject: Subject, kept: Mapping[str, Sequence[int]], repair: str, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """Cut, repair and train a network; say its test accuracies before and after."""
    network = subject.cut(kept)
    if repair == "recalibrated":
        subject.recalibrate_(network)
    else:
        reconstruct_(network, subject.context(N_IMAGES), kept)
    before = subject.measure_test_accuracy(network)
    for _ in train_(network, subject.roles, make_task(), recipe, seed=seed, device=subject.device):
        pass
    after = subject.measure_test_accuracy(network)
    click.echo(f"{subject.name}, {repair}, seed {seed}: {100 * before:.2f} to {100 * after:.2f}%")
    return {"before": before, "after": after, "n_steps": recipe.images // recipe.batch_size}


@click.command("joint-switches")
@click.option("--steps", default=400, help="Optimiser steps, of the joint training and of each single one.")
@click.option("--images", default=5000)
@click.option("--repetitions", default=3, help="Each with a seed of its own.")
@click.option("--networks", default="lenet5,resnet20,vgg16", show_default=True)
@click.pass_obj
def joint_switches(setting: Setting, steps: int, images: int, repetitions: int, networks: str) -> None:
    """The switches of all groups trained jointly, against one training for each group at equal steps."""
    rows = setting.rows("joint-switches")
    quick = setting.is_quick
    steps, images, repetitions = (3, 200, 1) if quick else (steps, images, repetitions)
    for name in networks.split(",")[: 2 if quick else None]:
        subject = load_lenets(setting)[0] if name == "lenet5" else load_cifar_subject(name, setting)
        for seed in range(repetitions):
            # Random weights are for times alone, and a step of VGG-16 takes seconds: few steps.
            n_steps = steps if subject.is_trained else min(steps, 2)
            key = {"subject": subject.name, "seed": seed, "steps": n_steps, "n_images": images}
            if not rows.is_done(**key):
                rows.add(key, _compare_switches(subject, subject.context(images, seed), n_steps))
                row = rows.select(**key)[0]
                click.echo(f"{subject.name}, seed {seed}: {row['per_group_s'] / row['joint_s']:.2f}x")


def _compare_switches(subject: Subject, context: ScoringContext, n_steps: int) -> dict[str, Any]:
    """Train both ways; accuracies are means over architectures, after recalibration."""
    method = create("dirichlet", {"steps": n_steps})
    found: dict[str, dict] = {"per_group": {}, "joint": {}}

    def train_one_by_one() -> None:
        for group in subject.grouping.groups:
            alone = replace(context, grouping=Grouping((group,)))
            found["per_group"] |= compute_scores(method, alone)

    def train_jointly() -> None:
        found["joint"] |= compute_scores(method, context)

    values: dict[str, Any] = {"n_groups": len(subject.grouping.groups)}
    for name, run in (("per_group", train_one_by_one), ("joint", train_jointly)):
        values[f"{name}_s"] = measure_seconds(run)
        if subject.is_trained:
            values[f"{name}_accuracy"] = _measure_mean_accuracy(subject, found[name])
    return values


def _measure_mean_accuracy(subject: Subject, scores: dict) -> float:
    accuracies = []
    for _, architecture in list_fixed_architectures(subject, False):
        network = subject.cut(keep_best(scores, architecture))
        subject.recalibrate_(network)
        accuracies.append(subject.measure_test_accuracy(network))
    return statistics.fmean(accuracies)
