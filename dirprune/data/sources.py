"""Data sets by name, or from the caller's own function."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dirprune.data.class_folders import has_class_folders, read_class_folders
from dirprune.data.roles import OWN_SPLIT, DataRoles, make_roles
from dirprune.errors import DataError, one_line, suggest
from dirprune.files import user_cache_folder

DATA_NAMES = ("cifar10", "digits", "fashion_mnist", "mnist")
MEAN_AND_STD: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # of the training images, as fractions of 255; but cifar10's are ImageNet's: published weights want them
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "digits": ((0.3052,), (0.3249,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "mnist": ((0.1307,), (0.3081,)),
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
        data: "cifar10", "digits", "fashion_mnist", "mnist", or a callable that takes `root` and, if it has
            parameters of these names, `validation_from`, `train_limit` and `seed`, and returns `DataRoles`.
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
    folder = None if root is None else Path(root)
    if data == "digits":
        arrays = _load_digits()
    else:
        arrays = _load_cifar10(folder) if data == "cifar10" else _load_mnist(data, folder)
    mean, std = MEAN_AND_STD[data]
    return make_roles(data, *arrays, n_classes=10, mean=mean, std=std, **choices)  # type: ignore[arg-type]


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


def _load_mnist(name: str, root: Path | None) -> Arrays:
    from torchvision.datasets import MNIST, FashionMNIST

    kind = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    raw = f"{kind.__name__}/raw"
    folder = root if root is not None else _download(kind, name, raw)
    for file in RAW_FILES:
        if not (folder / raw / file).is_file():
            raise DataError(f"expected the data set {name!r} in {folder}, found no {raw}/{file} there")
    train, test = _read_parts(kind, folder, raw)
    return train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets


def _load_cifar10(root: Path | None) -> Arrays:
    """Read torchvision's files, or class folders; torchvision unpickles nothing whose check sum is wrong."""
    from torchvision.datasets import CIFAR10

    batches = CIFAR10.base_folder
    folder = root if root is not None else _download(CIFAR10, "cifar10", batches)
    if (folder / batches).is_dir():
        train, test = _read_parts(CIFAR10, folder, batches)
        images, held_out = (torch.from_numpy(part.data).permute(0, 3, 1, 2) for part in (train, test))
        return (
            images.contiguous(),
            torch.tensor(train.targets),
            held_out.contiguous(),
            torch.tensor(test.targets),
        )
    if not has_class_folders(folder):
        raise DataError(
            f"expected the data set 'cifar10' in {folder}, found neither {batches} there "
            "nor train/<class> and test/<class>"
        )
    *arrays, classes = read_class_folders(folder)
    if len(classes) != 10 or arrays[0].shape[2:] != (32, 32):
        raise DataError(
            f"expected 10 classes of 32 x 32 pixels, the data set 'cifar10', in {folder}, "
            f"got {len(classes)} of {arrays[0].shape[3]} x {arrays[0].shape[2]}"
        )
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _read_parts(kind: Any, folder: Path, where: str) -> list[Any]:
    """Return torchvision's training and held-out part of a data set that lies in a folder."""
    try:
        return [kind(folder, train=is_train, download=False) for is_train in (True, False)]
    except (AssertionError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise DataError(
            f"expected whole files in {folder / where}, got a broken one: {one_line(error, has_type=True)}"
        ) from error


def _download(kind: Any, name: str, files: str) -> Path:
    """Return the cache folder of a data set, downloaded once; it has its name only when whole.

    Args:
        files: Where in it the files lie, for whoever must bring them.
    """
    cache = user_cache_folder()
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
            f"a folder that holds {files}"
        ) from error
    return folder
