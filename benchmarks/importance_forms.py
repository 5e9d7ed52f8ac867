"""Greedy elimination within given widths, and as a path that chooses the widths, at equal MACs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from importance_common import Rows, Setting, Subject, load_cifar_subject, load_lenets
from importance_methods import Variant, find_variants
from importance_widths import Widths

from dirprune.architecture import Architecture
from dirprune.importance import ScoreCache

EVENLY = "equal keep ratios"


@click.command("greedy-forms")
@click.option("--subjects", default="lenet5,resnet20", help="lenet5, resnet20, resnet56.")
@click.option("--targets", default="0.7,0.5,0.35,0.2", help="Shares of the dense MACs.")
@click.option("--costs", default="macs,parameters,latency", help="What a path saves.")
@click.option("--methods", default="random;magnitude L1;greedy, loss", help="Channels beside the path's own.")
@click.option("--images", default=1000, help="Calibration images that scores may see.")
@click.option("--seeds", default=5, help="Of methods that have one.")
@click.pass_obj
def greedy_forms(
    setting: Setting, subjects: str, targets: str, costs: str, methods: str, images: int, seeds: int
) -> None:
    """Test accuracy at equal MACs: widths and channels along a path, channels by greedy, both ways mixed."""
    quick = setting.is_quick
    shares = [float(text) for text in targets.split(",")][: 1 if quick else None]
    images, seeds = (100, 1) if quick else (images, seeds)
    for kind in subjects.split(","):
        loaded = load_lenets(setting) if kind == "lenet5" else [load_cifar_subject(kind, setting)]
        for subject in loaded:
            for cost in costs.split(","):
                path = Variant(f"greedy-path, {cost}", "greedy-path", {"cost": cost})
                variants = [*find_variants(methods), path]
                _compare(setting, subject, path, variants, shares, images, seeds)


def _compare(
    setting: Setting,
    subject: Subject,
    path: Variant,
    variants: list[Variant],
    shares: list[float],
    n_images: int,
    n_seeds: int,
) -> None:
    """Judge every choice of channels in equal widths and in those of a path, for each share of the MACs."""
    rows = setting.rows("greedy-forms")
    cache = ScoreCache(setting.output / "scores")
    for share, (name, architecture) in _list_widths(subject, path, shares, n_images, cache):
        for variant in variants:
            for seed in range(n_seeds if variant.is_stochastic else 1):
                key = {
                    "subject": subject.name,
                    "widths": name,
                    "variant": variant.label,
                    "seed": seed,
                    "target": share,
                    "n_images": n_images,
                    "architecture": str(architecture),
                }
                if not rows.select(**key):  # older rows have the architecture beside the key
                    _judge(rows, key, subject, variant, architecture, cache)


def _list_widths(
    subject: Subject, path: Variant, shares: list[float], n_images: int, cache: ScoreCache
) -> Iterator[tuple[float, tuple[str, Architecture]]]:
    widths = Widths(subject)
    places = path.select(subject.context(n_images), widths.full, cache).scores
    for share in shares:
        yield share, (EVENLY, widths.evenly(share))
        yield share, (path.label, widths.along(places, share))


def _judge(
    rows: Rows,
    key: dict[str, Any],
    subject: Subject,
    variant: Variant,
    architecture: Architecture,
    cache: ScoreCache,
) -> None:
    """Cut, recalibrate, and keep both accuracies."""
    context = subject.context(key["n_images"], key["seed"])
    selection = variant.select(context, architecture, cache)
    network = subject.cut(selection.kept)
    found = {"before": subject.measure_test_accuracy(network)}
    subject.recalibrate_(network)
    found["after"] = subject.measure_test_accuracy(network)
    macs = Widths(subject).share_of(architecture)
    rows.add(key, {**found, "macs": macs})
    click.echo(
        f"{key['subject']}, {key['target']:.0%}, {key['widths']}, {variant.label}, seed {key['seed']}: "
        f"{100 * found['before']:.1f} to {100 * found['after']:.1f}%"
    )
