"""Recipe: how a network is trained or fine-tuned, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import get_args

from dirprune.augmentation import Augmentation
from dirprune.errors import ConfigurationError, suggest
from dirprune.pareto import Direction

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "bfloat16", "float32")
DIRECTIONS = get_args(Direction)


@dataclass(frozen=True)
class Recipe:
    """The settings of one training, with the resource counted in training images seen.

    Args:
        images: Training images to see in all; an epoch is the size of the train role. 0 trains nothing.
        batch_size: Images per step at most; the batches between two reports differ by at most one image. One
            image that would be alone has the one before it in the epoch beside it, unless this is 1.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        lr: Peak learning rate; it falls to 0 along a cosine over `images` [Loshchilov, Hutter 2017].
        warmup: Share of `images` over which the rate first rises to its peak in a line, in [0, 1)
            [Goyal et al. 2017].
        weight_decay: Applied to weights with two or more axes, not to biases or batch norm; >= 0.
        momentum: Of "sgd" only, in [0, 1).
        clip_norm: Gradients whose norm over all weights is larger are scaled down to it, > 0
            [Pascanu et al. 2013]; None: none are.
        label_smoothing: Weight of uniform targets beside the true ones, in [0, 1), with cross-entropy only
            [Szegedy et al. 2016, section 7].
        distillation: Weight of the teacher's part of the loss, in [0, 1]; above 0 a teacher is needed.
        temperature: Softens both outputs in distillation; > 0.
        min_area: Training images are seen as random parts of at least this share of their area, resized
            ([Szegedy et al. 2015], `dirprune.data.views.RandomCrops`), in (0, 1]; 1: whole.
        shift: Training images are moved at random by up to so many pixels; 4 is usual for CIFAR.
        flips: Whether left and right are exchanged in half of the training images.
        rotation: They are turned at random by up to so many degrees, in [0, 180].
        scaling: Their height and width change at random by up to this fraction, in [0, 1).
        shear: They are slanted at random by up to so many degrees, in [0, 90).
        elastic: They are distorted smoothly, by a standard deviation of so many pixels; >= 0
            [Simard et al. 2003].
        patience: Stop after so many evaluations in a row without improvement of `monitor`, and keep the
            best weights; None trains to the end and keeps the last.
        monitor: The validation metric that `patience` watches.
        monitor_direction: "minimize" or "maximize".
        channels_last: Train with channels innermost in memory: often faster, but a network that reshapes
            its convolutions' outputs with `view` cannot; weights are laid out as usual at the end.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU that has it.

    Raises:
        ConfigurationError: If a value is outside its range.
    """

    images: int
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 4e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    warmup: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    min_area: float = 1.0
    shift: int = 0
    flips: bool = False
    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    patience: int | None = None
    monitor: str = "val_loss"
    monitor_direction: str = "minimize"
    channels_last: bool = False
    precision: str = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_wanted = field.type == "float" or (field.type == "float | None" and value is not None)
            if is_wanted and not (_is_number(value) and math.isfinite(value)):
                raise ConfigurationError(f"{field.name} must be a finite number, got {value!r}")
        self._check_whole(
            "images", 0, "give training images seen, for example 5 epochs times the images in one"
        )
        self._check_whole("batch_size", 1, "128 is the default")
        self._check_whole("shift", 0, "0 moves no image; 4 is usual for CIFAR")
        self._check("flips", isinstance(self.flips, bool), "True or False", "False mirrors no image")
        if self.patience is not None:
            self._check_whole("patience", 1, "use None to train to the end")
        self._check("lr", self.lr > 0, "> 0", "0.004 suits adamw, 0.02 sgd")
        self._check("weight_decay", self.weight_decay >= 0, ">= 0", "0 turns it off")
        self._check("momentum", 0 <= self.momentum < 1, "in [0, 1)", "0.9 is the default")
        self._check("warmup", 0 <= self.warmup < 1, "in [0, 1)", "a tenth of the training is 0.1")
        self._check(
            "clip_norm", self.clip_norm is None or self.clip_norm > 0, "> 0", "1 is usual, None clips nothing"
        )
        self._check(
            "label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)", "0.1 is usual, 0 turns it off"
        )
        self._check("rotation", 0 <= self.rotation <= 180, "in [0, 180]", "degrees, 10 suits digits")
        self._check("scaling", 0 <= self.scaling < 1, "in [0, 1)", "0.1 is up to a tenth larger or smaller")
        self._check("shear", 0 <= self.shear < 90, "in [0, 90)", "degrees, 10 suits digits")
        self._check("elastic", self.elastic >= 0, ">= 0", "pixels, 0.5 distorts digits a little")
        self._check("distillation", 0 <= self.distillation <= 1, "in [0, 1]", "half the loss is 0.5")
        self._check("min_area", 0 < self.min_area <= 1, "in (0, 1]", "1 shows images whole")
        self._check("temperature", self.temperature > 0, "> 0", "2 is the default")
        self._check(
            "channels_last", isinstance(self.channels_last, bool), "True or False", "False always works"
        )
        self._check_name("optimizer", OPTIMIZERS)
        self._check_name("precision", PRECISIONS)
        self._check_name("monitor_direction", DIRECTIONS)

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed once they are cut out."""
        return Augmentation(self.shift, self.flips, self.rotation, self.scaling, self.shear, self.elastic)

    @property
    def augments(self) -> bool:
        """Whether training images differ from one pass to the next."""
        return self.min_area < 1 or not self.augmentation.is_none

    def lr_at(self, images: int) -> float:
        """Compute the learning rate of the step that starts after `images` training images."""
        rising = self.warmup * self.images
        if images < rising:
            return self.lr * min(1.0, (images + self.batch_size) / rising)  # no step is lost to a rate of 0
        return self.lr * 0.5 * (1 + math.cos(math.pi * (images - rising) / max(self.images - rising, 1)))

    def _check(self, name: str, is_valid: bool, expected: str, hint: str) -> None:
        if not is_valid:
            raise ConfigurationError(f"{name} must be {expected}, got {getattr(self, name)!r}; {hint}")

    def _check_whole(self, name: str, least: int, hint: str) -> None:
        value = getattr(self, name)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        self._check(name, is_whole and value >= least, f"a whole number >= {least}", hint)

    def _check_name(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise ConfigurationError(f"unknown {name} {value!r}{suggest(str(value), known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
