"""Recipes of the studies that come with dirprune, one for each kind of data, and where they come from.

`images` is 0 in all of them: a study sets it by its epochs.
"""

from __future__ import annotations

from dataclasses import replace

from dirprune.data.sources import DIGITS
from dirprune.recipe import Recipe

CIFAR = Recipe(
    images=0,
    batch_size=128,
    optimizer="sgd",
    lr=0.1,
    warmup=0.05,
    weight_decay=5e-4,
    shift=4,
    flips=True,
    channels_last=True,
)
"""Dense networks for images of 32 x 32 pixels: batches of 128, shifts of up to 4 pixels, mirroring and
momentum 0.9 [He et al. 2016, section 4.2], weight decay 5e-4 [Zagoruyko, Komodakis 2016], a cosine rate after
a warm-up [Goyal et al. 2017], without which VGG-16 blows up in its first steps
(`benchmarks/results/gpu.md#earlier-forms`)."""

CIFAR_FINE_TUNING = replace(CIFAR, lr=0.01, warmup=0.0, distillation=0.9, temperature=4.0)
"""The same from a pruned network on, with nine tenths of the loss from the dense one [Hinton et al. 2015]:
the best of eight recipes for ResNet-20 (`benchmarks/results/resnet.md#recipes-for-resnet-20-on-cifar-10`)."""

IMAGES = Recipe(
    images=0,
    batch_size=128,
    optimizer="sgd",
    lr=0.03,
    warmup=0.05,
    weight_decay=1e-4,
    min_area=0.25,
    flips=True,
    channels_last=True,
)
"""Photographs: momentum and weight decay as ResNet-50 has them on ImageNet [He et al. 2016], seen as random
resized crops [Szegedy et al. 2015] of a quarter of their area at least. The rate is the best of 0.1 to 0.01
for ResNet-18 in short trainings, where 0.1 learns little
(`benchmarks/results/resnet.md#recipes-for-photographs`), after a warm-up as in `CIFAR`; trainings as long as
on ImageNet were not compared."""

IMAGES_FINE_TUNING = replace(IMAGES, lr=0.01, warmup=0.0, distillation=0.5)
"""The same from a pruned network on, with half of the loss from the dense one [Hinton et al. 2015]; no other
was clearly better (`benchmarks/results/resnet.md#recipes-for-photographs`)."""


def for_data_set(recipe: Recipe, name: str) -> Recipe:
    """Return a recipe as it is for a data set by name: digits are not mirrored."""
    return replace(recipe, flips=recipe.flips and name not in DIGITS)
