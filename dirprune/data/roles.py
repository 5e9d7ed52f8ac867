"""The four roles of data: train, calibration, validation and test; disjoint, and cut by seed."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dirprune.data.split import Split
from dirprune.data.streaming import StreamedSplit
from dirprune.errors import DataError
from dirprune.identity import digest

OWN_SPLIT = "train:0.1"
"""Where validation comes from for weights that dirprune trains: they never see that part."""
FOREIGN_SPLIT = "test:0.5"
"""Where it comes from for weights that may have seen the whole training set."""


AnySplit = Split | StreamedSplit
"""Both offer the same; only calibration is sure to be in memory."""


@dataclass(frozen=True, eq=False)
class DataRoles:
    """A data set in its four roles.

    Attributes:
        name: Name of the data set.
        train: What weights are fitted on.
        calibration: A class-balanced part of `train`, for scores and batch-norm statistics. Any beginning of
            it is class-balanced too.
        validation: What every decision is based on.
        test: Reported, decides nothing.
        mean: Mean per channel of the inputs (of images as fractions of 255), or one for all.
        std: Standard deviation, likewise; > 0.
        n_classes: Number of classes; None if the targets are not class labels.
        identity: By which the set that validation is a part of is known again: the same examples in the same
            order have the same one. Empty where it is not known.
    """

    name: str
    train: AnySplit
    calibration: Split
    validation: AnySplit
    test: AnySplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_classes: int | None
    identity: str = ""

    def __repr__(self) -> str:
        """Return each role in a line of its own."""
        classes = "no classes" if self.n_classes is None else f"{self.n_classes} classes"
        roles = ("train", "calibration", "validation", "test")
        lines = [f"    {role}={getattr(self, role)!r}," for role in roles]
        scale = f"    mean={self.mean}, std={self.std}"
        return "\n".join([f"DataRoles({self.name!r}, {classes},", *lines, scale, ")"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return self.train.input_shape

    @property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation of the inputs, for whoever deploys a network; images as fractions."""
        return {"mean": self.mean, "std": self.std}

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return inputs as the network wants them: float32, centred and scaled per channel.

        Args:
            inputs: Shape (n, channels, ...); uint8 is divided by 255 first, float32 is not.
        """
        largest = 255 if inputs.dtype == torch.uint8 else 1
        scale, offset = _find_scale(self.mean, self.std, largest, inputs.ndim, inputs.device)
        # One new tensor, gone over three times: making more takes longer than filling it.
        values = inputs.to(torch.float32, copy=True)
        return values.mul_(scale).add_(offset)

    def example_input(self, batch: int = 2) -> Tensor:
        """Return the first of calibration, normalised, shape (batch, ...); repeated if there are too few."""
        return self.normalise(self.calibration.inputs[torch.arange(batch) % len(self.calibration)])

    def fingerprint(self) -> str:
        """Return a hash of the content, the roles and the normalisation, the same on every device."""
        splits = (self.train, self.calibration, self.validation, self.test)
        return digest(
            list(self.mean), list(self.std), self.n_classes, *(split.fingerprint() for split in splits)
        )

    @property
    def unreadable(self) -> list[str]:
        """Streamed images that could not be read so far, each with the reason."""
        streams = [
            split for split in (self.train, self.validation, self.test) if isinstance(split, StreamedSplit)
        ]
        return list(dict.fromkeys(reason for split in streams for reason in split.index.broken.values()))

    def judged_on(self, n_images: int, seed: int) -> DataRoles:
        """Return the roles with at most so many examples of validation and of test, with every class.

        Args:
            n_images: Of each; >= 1.
            seed: Which ones.
        Raises:
            DataError: If there is none, or a class would be without any.
        """
        if n_images < 1:
            raise DataError(f"the images that networks are judged on must be at least 1, got {n_images}")

        def draw(role: str, split: AnySplit) -> AnySplit:
            if n_images >= len(split):
                return split
            generator = _make_generator(seed, f"judged {role}")
            order = _order_by_class(split.targets, self.n_classes, generator, is_proportional=True)
            fewer = split.subset(order[:n_images].sort().values)
            if self.n_classes is not None:
                _check_has_every_class(role, fewer, self.n_classes)
            return fewer

        return replace(self, validation=draw("validation", self.validation), test=draw("test", self.test))

    def to(self, device: torch.device | str) -> DataRoles:
        """Return the same roles with their tensors on a device."""
        return replace(
            self,
            train=self.train.to(device),
            calibration=self.calibration.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


@functools.lru_cache(maxsize=64)
def _find_scale(
    mean: tuple[float, ...], std: tuple[float, ...], largest: int, ndim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return by what inputs are multiplied and what is added then, for tensors of so many axes.

    They are kept: sending them to a GPU with each batch would wait for all that it has to do.
    """
    shape = (-1, *(1,) * (ndim - 2))
    with torch.inference_mode(False):  # whoever asks next may want gradients
        scale = torch.tensor([1 / (largest * value) for value in std], dtype=torch.float32)
        offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
        return scale.view(shape).to(device), offset.view(shape).to(device)


def make_roles(
    name: str,
    train_inputs: Tensor,
    train_targets: Tensor,
    test_inputs: Tensor,
    test_targets: Tensor,
    *,
    validation_from: str = OWN_SPLIT,
    n_calibration: int = 5000,
    train_limit: int | None = None,
    seed: int = 0,
    n_classes: int | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> DataRoles:
    """Cut a training set and a held-out set into the four roles.

    Validation and what it is cut from keep the same class proportions. Calibration and a limited training
    role hold the same number of each class, as far as the classes go. Each cut has its own generator, so that
    a training limit leaves validation and test as they are.

    What is cut here is disjoint. That no example is in both of the given sets is for the caller to see to;
    only one tensor as both is refused.

    Args:
        name: Name of the data set.
        train_inputs: Shape (n, ...), uint8 or floating point.
        train_targets: Shape (n,) of class labels, or (n, ...) of anything if `n_classes` is None.
        test_inputs: The held-out set, likewise.
        test_targets: The held-out set, likewise.
        validation_from: "train:F": a part F in (0, 1) of the training set, and the whole held-out set is the
            test; "test:F": a part F of the held-out set, and the rest of it is the test. Use the second for
            weights that have seen the whole training set.
        n_calibration: Examples for calibration; never more than half of the training role.
        train_limit: At most so many training examples, class-balanced; None for all.
        seed: Seed of every cut.
        n_classes: Number of classes; None cuts at random.
        mean: Of the inputs (images as fractions of 255), one number or one per channel.
        std: Standard deviation, likewise.
    Raises:
        DataError: If the sets are empty, inconsistent or the same, a role would be empty or lack a class, or
            `validation_from` or a count is out of range.
    """
    if train_inputs is test_inputs:
        raise DataError(
            "expected training and test inputs without an example in common, got the same tensor as both; "
            "hold a part out before, such as inputs[:800] and inputs[800:] of shuffled examples"
        )
    return cut_roles(
        name,
        _make_source("train", train_inputs, train_targets, n_classes),
        _make_source("test", test_inputs, test_targets, n_classes),
        validation_from=validation_from,
        n_calibration=n_calibration,
        train_limit=train_limit,
        seed=seed,
        n_classes=n_classes,
        mean=mean,
        std=std,
    )


def cut_roles(
    name: str,
    train: AnySplit,
    held_out: AnySplit,
    *,
    validation_from: str,
    n_calibration: int = 5000,
    train_limit: int | None = None,
    seed: int = 0,
    n_classes: int | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    identities: tuple[str, str] | None = None,
) -> DataRoles:
    """Cut a training set and a held-out set, wherever they lie, into the four roles; see `make_roles`.

    Calibration is read into memory. `identities` are those of the two sets, where something better is known
    than what they say themselves.
    """
    if train.input_shape != held_out.input_shape:
        raise DataError(
            f"expected training and test inputs of the same shape, got {train.input_shape} "
            f"and {held_out.input_shape}"
        )
    _check_normalisation(mean, std, train.input_shape)
    for what, count in (("n_calibration", n_calibration), ("train_limit (--train-images)", train_limit)):
        if count is not None and count < 1:
            raise DataError(f"{what} must be at least 1, got {count}")

    source, fraction = _parse_validation_from(validation_from)
    whole: AnySplit = train if source == "train" else held_out
    n_validation = round(fraction * len(whole))
    if not 0 < n_validation < len(whole):
        raise DataError(
            f"validation_from {validation_from!r} leaves no example for one of the two parts of the "
            f"{len(whole)} {source} examples; try {source}:0.5"
        )
    identity = identities[source == "test"] if identities is not None else whole.identify()
    order = _order_by_class(
        whole.targets, n_classes, _make_generator(seed, "validation"), is_proportional=True
    )
    validation = whole.subset(order[:n_validation])
    rest = whole.subset(order[n_validation:].sort().values)
    train, test = (rest, held_out) if source == "train" else (train, rest)

    if train_limit is not None and train_limit < len(train):
        order = _order_by_class(
            train.targets, n_classes, _make_generator(seed, "train"), is_proportional=False
        )
        train = train.subset(order[:train_limit])
    order = _order_by_class(
        train.targets, n_classes, _make_generator(seed, "calibration"), is_proportional=False
    )
    calibration = train.subset(order[: max(1, min(n_calibration, len(train) // 2))]).in_memory()
    if n_classes is not None:
        for role, split in (("train", train), ("validation", validation), ("test", test)):
            _check_has_every_class(role, split, n_classes)
    return DataRoles(name, train, calibration, validation, test, tuple(mean), tuple(std), n_classes, identity)


def _make_source(source: str, inputs: Tensor, targets: Tensor, n_classes: int | None) -> Split:
    inputs, targets = torch.as_tensor(inputs), torch.as_tensor(targets)
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataError(
            f"expected as many {source} inputs as targets, at least one, got {len(inputs)} and {len(targets)}"
        )
    if inputs.is_floating_point():
        inputs = inputs.to(torch.float32)
    elif inputs.dtype != torch.uint8:
        raise DataError(f"expected {source} inputs of type uint8 or float32, got {inputs.dtype}")
    if n_classes is not None:
        if targets.ndim != 1 or targets.is_floating_point():
            raise DataError(
                f"expected one whole-number label per {source} example, got targets of shape "
                f"{tuple(targets.shape)} and type {targets.dtype}; for anything else give n_classes=None"
            )
        targets = targets.to(torch.int64)
        lowest, highest = int(targets.min()), int(targets.max())
        if lowest < 0 or highest >= n_classes:
            raise DataError(f"expected {source} labels in 0..{n_classes - 1}, got {lowest}..{highest}")
    return Split(inputs, targets, torch.arange(len(inputs)), source)


def _check_normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], input_shape: tuple[int, ...]
) -> None:
    n_channels = input_shape[0] if input_shape else 1
    if len(mean) != len(std) or len(mean) not in (1, n_channels):
        raise DataError(
            f"expected mean and std of one number or {n_channels}, got {len(mean)} and {len(std)} numbers"
        )
    if not all(math.isfinite(value) for value in mean) or not all(value > 0 for value in std):
        raise DataError(f"expected a finite mean and std > 0, got {mean} and {std}")


def _parse_validation_from(text: str) -> tuple[str, float]:
    source, separator, number = str(text).partition(":")
    try:
        fraction = float(number)
    except ValueError:
        fraction = math.nan
    if source not in ("train", "test") or not separator or not 0 < fraction < 1:
        raise DataError(
            f"expected validation_from train:F or test:F with F in (0, 1), got {text!r}; "
            f"try {OWN_SPLIT} or {FOREIGN_SPLIT}"
        )
    return source, fraction


def _make_generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(digest(purpose, seed)[:15], 16))


def _order_by_class(
    targets: Tensor, n_classes: int | None, generator: torch.Generator, *, is_proportional: bool
) -> Tensor:
    """Return a random order of the examples, shape (n,), of which every beginning is class-balanced.

    Args:
        targets: Class labels, shape (n,), or anything if `n_classes` is None: then the order is only random.
        n_classes: Number of classes.
        generator: The source of randomness.
        is_proportional: Whether a beginning holds the classes in the proportions of all examples, rather than
            the same number of each class as long as there are any.
    """
    order = torch.randperm(len(targets), generator=generator)
    if n_classes is None:
        return order
    labels = targets[order]
    by_label = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=n_classes)
    starts = counts.cumsum(0) - counts
    place_in_class = torch.empty(len(targets), dtype=torch.float64)
    place_in_class[by_label] = (torch.arange(len(targets)) - starts[labels[by_label]]).double()
    key = (place_in_class + 0.5) / counts[labels] if is_proportional else place_in_class
    return order[torch.argsort(key, stable=True)]


def _check_has_every_class(role: str, split: AnySplit, n_classes: int) -> None:
    absent = (torch.bincount(split.targets, minlength=n_classes) == 0).nonzero().flatten().tolist()
    if absent:
        raise DataError(
            f"expected every one of the {n_classes} classes in the {role} role, got none of class "
            f"{', '.join(map(str, absent))} in {len(split)} examples; try a larger part or a higher limit"
        )
