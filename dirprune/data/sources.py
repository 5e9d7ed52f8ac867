"""Data sets by name, or from the caller's own function."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dirprune.data.roles import OWN_SPLIT, DataRoles, make_roles
from dirprune.errors import DataError, one_line, suggest

DATA_NAMES = ("digits", "fashion_mnist", "mnist")
MEAN_AND_STD = {  # of the training images, as fractions of 255
    "digits": (0.3052, 0.3249),
    "fashion_mnist": (0.2860, 0.3530),
    "mnist": (0.1307, 0.3081),
}
RAW_FILES = (  # as torchvision lays MNIST and FashionMNIST out
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
Arrays = tuple[Tensor, Tensor, Tensor, Tensor]  # train inputs, train targets, test inputs, test targets


def load_data(
    data: str | Callable[..., DataRoles],
    root: str | Path | None = None,
    *,
    validation_from: str = OWN_SPLIT,
    train_limit: int | None = None,
    seed: int = 0,
) -> DataRoles:
    """Load a data set in its four roles.

    Args:
        data: "digits", "mnist", "fashion_mnist", or a callable that takes `root` and, if it has parameters of
            these names, `validation_from`, `train_limit` and `seed`, and returns `DataRoles`.
        root: Folder that holds the data set; nothing is ever written there. None downloads into the user's
            cache folder (the digits come with scikit-learn and need neither).
        validation_from: See `make_roles`.
        train_limit: See `make_roles`.
        seed: Seed of the roles.
    Raises:
        DataError: If the name is unknown, the data are missing, broken or cannot be downloaded, or the
            callable returns something else.
    """
    choices = {"validation_from": validation_from, "train_limit": train_limit, "seed": seed}
    if not isinstance(data, str):
        return _call(data, root, choices)
    if data not in DATA_NAMES:
        raise DataError(f"unknown data set {data!r}{suggest(data, DATA_NAMES)}")
    if root is not None and not Path(root).is_dir():
        raise DataError(f"expected a folder with the data set {data!r}, found none at {root}")
    arrays = (
        _load_digits() if data == "digits" else _load_torchvision(data, None if root is None else Path(root))
    )
    mean, std = MEAN_AND_STD[data]
    return make_roles(data, *arrays, n_classes=10, mean=(mean,), std=(std,), **choices)  # type: ignore[arg-type]


def _call(data: Callable[..., DataRoles], root: str | Path | None, choices: dict[str, Any]) -> DataRoles:
    parameters = inspect.signature(data).parameters
    name = getattr(data, "__qualname__", type(data).__qualname__)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = {key: value for key, value in choices.items() if takes_any or key in parameters}
    if choices["train_limit"] is not None and "train_limit" not in accepted:
        raise DataError(
            f"expected the data function {name} to take train_limit (--train-images), it does not; "
            "try adding the parameter and handing it to make_roles"
        )
    roles = data(None if root is None else Path(root), **accepted)
    if not isinstance(roles, DataRoles):
        raise DataError(
            f"expected DataRoles from the data function {name}, got a {type(roles).__name__}; "
            "try returning dirprune.data.make_roles(...)"
        )
    return roles


def _load_digits() -> Arrays:
    """Return scikit-learn's 1,797 handwritten digits as images of 28 x 28 pixels, a fifth of them held out.

    The cut is always the same: a network that was trained with another seed must not have seen the test.
    """
    from sklearn.datasets import load_digits  # a second to import: only where it is needed

    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)  # (1797, 1, 8, 8), from 0..16
    images = F.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    images = images.round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    cut = make_roles("digits", images, labels, images, labels, validation_from="train:0.2", n_classes=10)
    return cut.train.inputs, cut.train.targets, cut.validation.inputs, cut.validation.targets


def _load_torchvision(name: str, root: Path | None) -> Arrays:
    from torchvision.datasets import MNIST, FashionMNIST

    kind = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    folder = root if root is not None else _download(kind, name)
    for file in RAW_FILES:
        if not (folder / kind.__name__ / "raw" / file).is_file():
            raise DataError(
                f"expected the data set {name!r} in {folder}, found no {kind.__name__}/raw/{file} there"
            )
    try:
        parts = [kind(folder, train=is_train, download=False) for is_train in (True, False)]
    except (AssertionError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise DataError(
            f"expected whole files in {folder / kind.__name__ / 'raw'}, got a broken one: "
            f"{one_line(error, has_type=True)}"
        ) from error
    train, test = parts
    return train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets


def _download(kind: Any, name: str) -> Path:
    """Return the cache folder of a data set, downloaded once; it has its name only when whole."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dirprune"
    folder = cache / name
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache))
        try:
            kind(partial, train=True, download=True)
            if not folder.is_dir():  # another process may have been faster
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (RuntimeError, OSError) as error:  # OSError: no network, or a folder that cannot be written
        raise DataError(
            f"could not download the data set {name!r} ({one_line(error)}); give --data DIR, "
            f"a folder that holds {kind.__name__}/raw"
        ) from error
    return folder
