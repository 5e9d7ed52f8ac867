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
from dirprune.data.photographs import USUAL_SIZE, describe_place, load_photographs, parse_size
from dirprune.data.roles import OWN_SPLIT, DataRoles, cut_roles, make_roles
from dirprune.data.split import Split
from dirprune.data.store import Place, is_uri
from dirprune.errors import DataError, one_line, suggest
from dirprune.files import user_cache_folder
from dirprune.remote import refuse_secret

DATA_NAMES = ("cifar10", "cifar100", "digits", "fashion_mnist", "folders", "mnist", "stream", "svhn")
FOLDERS = "folders"
"""Images of any data set in class folders or tar shards; `folders:112` resizes them."""
STREAM = "stream"
"""The same, decoded when they are wanted however few they are."""
DIGITS = frozenset({"digits", "mnist", "svhn"})
"""Data sets of digits, which are none any more when left and right are exchanged."""
MEAN_AND_STD: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # of the training images, as fractions of 255; but those of cifar10 and of class folders are ImageNet's:
    # published weights want them
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "digits": ((0.3052,), (0.3249,)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    FOLDERS: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
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


def check_data_name(name: str) -> None:
    """Check that there is a data set of that name.

    Raises:
        DataError: If there is none; the nearest one is named.
    """
    known, _, size = name.partition(":")
    if known not in DATA_NAMES or (size and known not in (FOLDERS, STREAM)):
        raise DataError(f"unknown data set {name!r}{suggest(name, DATA_NAMES)}")


def is_downloaded(data: str | Callable[..., DataRoles]) -> bool:
    """Whether a data set is fetched where no folder is given: neither photographs nor one of one's own is."""
    return isinstance(data, str) and data.partition(":")[0] not in (FOLDERS, STREAM)


def load_data(
    data: str | Callable[..., DataRoles],
    root: Place | None = None,
    *,
    validation_from: str = OWN_SPLIT,
    train_limit: int | None = None,
    seed: int = 0,
) -> DataRoles:
    """Load a data set in its four roles.

    Args:
        data: A name of `DATA_NAMES`; "folders" stands for `train/<class>/<image>` and `test` or `val`
            likewise, or tar shards, see `load_photographs`; "folders:112" where the images differ in size; in
            memory up to 4 GiB; "folders:224/256" is the middle, 224 pixels wide, of images whose shorter side
            is resized to 256, as published weights are judged. "stream:224" leaves the images where they are
            and decodes them when they are wanted. Or a callable that takes `root` and, if it has parameters
            of these names, `validation_from`, `train_limit` and `seed`, and returns `DataRoles`.
        root: Folder that holds the data set, or for "folders" and "stream" a URI such as s3://bucket/images;
            nothing is ever written there. None downloads into the user's cache folder (the digits come with
            scikit-learn and need neither).
        validation_from: See `make_roles`.
        train_limit: See `make_roles`.
        seed: Seed of the roles.
    Raises:
        DataError: If the name is unknown, the data are missing, broken or cannot be downloaded, or the
            callable returns something else.
        ConfigurationError: If `root` is an address that holds a secret.
    """
    if root is not None:
        refuse_secret(str(root), "--data")
    choices = {"validation_from": validation_from, "train_limit": train_limit, "seed": seed}
    if not isinstance(data, str):
        return _call(data, root, choices)
    check_data_name(data)
    data, _, size = data.partition(":")
    if data in (FOLDERS, STREAM):
        return _load_photographs(root, *parse_size(size), data == STREAM, choices)
    if root is not None and is_uri(root):
        raise DataError(f"expected a folder with the data set {data!r}, got {root}; try --dataset folders")
    folder = _check_folder(data, root)
    n_classes = 10
    if data == "digits":
        arrays = _load_digits()
    elif data == "svhn":
        arrays = _load_svhn(folder)
    elif data.startswith("cifar"):
        n_classes = int(data.removeprefix("cifar"))
        arrays = _load_cifar(data, n_classes, folder)
    else:
        arrays = _load_mnist(data, folder)
    mean, std = MEAN_AND_STD[data]
    return make_roles(data, *arrays, n_classes=n_classes, mean=mean, std=std, **choices)  # type: ignore[arg-type]


def _call(data: Callable[..., DataRoles], root: Place | None, choices: dict[str, Any]) -> DataRoles:
    parameters = inspect.signature(data).parameters
    name = getattr(data, "__qualname__", type(data).__qualname__)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = {key: value for key, value in choices.items() if takes_any or key in parameters}
    if choices["train_limit"] is not None and "train_limit" not in accepted:
        raise DataError(
            f"expected the data function {name} to take train_limit (--train-images), it does not; "
            "try adding the parameter and handing it to make_roles"
        )
    roles = data(root if root is None or is_uri(root) else Path(root), **accepted)
    if not isinstance(roles, DataRoles):
        raise DataError(
            f"expected DataRoles from the data function {name}, got a {type(roles).__name__}; "
            "try returning dirprune.data.make_roles(...)"
        )
    return roles


def _check_folder(data: str, root: Place | None) -> Path | None:
    if root is not None and not Path(root).is_dir():
        raise DataError(f"expected a folder with the data set {data!r}, found none at {root}")
    return None if root is None else Path(root)


def _load_photographs(
    root: Place | None, size: int | None, shorter: int | None, streams: bool, choices: dict[str, Any]
) -> DataRoles:
    if root is None:
        raise DataError(
            "class folders are never downloaded; give --data DIR, which holds train and val or test"
        )
    if not is_uri(root):
        _check_folder(FOLDERS, root)
    found = load_photographs(root, size, shorter, streams=streams)
    mean, std = MEAN_AND_STD[FOLDERS]
    return cut_roles(
        describe_place(root, size or (USUAL_SIZE if streams else None), shorter),
        found.train,
        found.held_out,
        n_classes=found.n_classes,
        mean=mean,
        std=std,
        identities=found.identities,
        **choices,
    )


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
    whole = Split(images, labels, torch.arange(len(images)), "train")
    cut = cut_roles("digits", whole, whole, validation_from="train:0.2", n_classes=10)  # for two of its roles
    train, held_out = cut.train.in_memory(), cut.validation.in_memory()
    return train.inputs, train.targets, held_out.inputs, held_out.targets


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


def _load_svhn(root: Path | None) -> Arrays:
    """Read the cropped digits from torchvision's files, or class folders; the extra images are left alone."""
    from torchvision.datasets import SVHN

    def fetch(folder: Path, train: bool, download: bool) -> None:
        for split in ("train", "test"):
            SVHN(folder, split=split, download=download)

    files = "train_32x32.mat and test_32x32.mat"
    folder = root if root is not None else _download(fetch, "svhn", files)
    if not any(folder.glob("*_32x32.mat")) and has_class_folders(folder):
        return _read_known_folders("svhn", 10, folder)
    try:
        train, test = (SVHN(folder, split=split) for split in ("train", "test"))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise DataError(
            f"expected the data set 'svhn' ({files}) in {folder}, got {one_line(error, has_type=True)}"
        ) from error
    images, labels, held_out, held_out_labels = map(
        torch.from_numpy, (train.data, train.labels, test.data, test.labels)
    )
    return images, labels.long(), held_out, held_out_labels.long()


def _load_cifar(name: str, n_classes: int, root: Path | None) -> Arrays:
    """Read torchvision's files, or class folders; torchvision unpickles nothing whose check sum is wrong."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    batches = kind.base_folder
    folder = root if root is not None else _download(kind, name, batches)
    if (folder / batches).is_dir():
        train, test = _read_parts(kind, folder, batches)
        images, held_out = (torch.from_numpy(part.data).permute(0, 3, 1, 2) for part in (train, test))
        return (
            images.contiguous(),
            torch.tensor(train.targets),
            held_out.contiguous(),
            torch.tensor(test.targets),
        )
    if not has_class_folders(folder):
        raise DataError(
            f"expected the data set {name!r} in {folder}, found neither {batches} there "
            "nor train/<class> and test/<class>"
        )
    return _read_known_folders(name, n_classes, folder)


def _read_known_folders(name: str, n_classes: int, folder: Path) -> Arrays:
    """Read class folders of a data set of 32 x 32 pixels, whose classes are in alphabetical order."""
    *arrays, classes = read_class_folders(folder)
    if len(classes) != n_classes or arrays[0].shape[2:] != (32, 32):
        raise DataError(
            f"expected {n_classes} classes of 32 x 32 pixels, the data set {name!r}, in {folder}, "
            f"got {len(classes)} of {arrays[0].shape[3]} x {arrays[0].shape[2]}; try --dataset folders:32"
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
