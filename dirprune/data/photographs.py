"""Any images in class folders or tar shards, local or in an object store: in memory or, if many, streamed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dirprune.data.class_folders import HELD_OUT, read_indexed
from dirprune.data.images import BROKEN, decode
from dirprune.data.index import ImageIndex, index_folders
from dirprune.data.roles import AnySplit
from dirprune.data.shards import index_shards
from dirprune.data.split import Split
from dirprune.data.store import Entry, Place, Store, is_uri
from dirprune.data.streaming import StreamedSplit
from dirprune.errors import DataError

logger = logging.getLogger("dirprune.data")

MAX_IN_MEMORY = 4 * 2**30
"""Bytes of decoded images up to which a set is kept in memory."""
N_LOOKED_AT = 8
"""Images of which one that can be read is looked for, to learn its size."""
USUAL_SIZE = 224
SHARD = ".tar"
OF_TORCHVISION = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion_mnist",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
    "train_32x32.mat": "svhn",
}
"""Data sets by what torchvision keeps of them in a folder."""


@dataclass(frozen=True)
class Photographs:
    """A training part and a held-out part with the same classes.

    Attributes:
        identities: Of both parts, see `DataRoles.identity`: the same in memory and streamed, in folders and
            in shards, as long as no image was left out and their order is the same.
    """

    train: AnySplit
    held_out: AnySplit
    n_classes: int
    identities: tuple[str, str]


def load_photographs(
    root: Place, size: int | None, shorter: int | None = None, *, streams: bool
) -> Photographs:
    """Find the images of a data set, and read them where they are few.

    Args:
        root: A folder or a URI. It holds `train` and one of `HELD_OUT`, which hold `<class>/<image>` or tar
            shards; or tar shards with these words in their names.
        size: Pixels of each side that images are resized to; None: they are of equal size and stay as they
            are, where they are class folders in memory.
        shorter: Pixels to which the shorter side is resized before the middle is cut out; None: to `size`.
        streams: Whether to stream however few they are.
    Raises:
        DataError: If there are no such parts, they have fewer than two classes or different ones, or what
            `index_folders` and `index_shards` refuse.
    """
    store = Store(str(root))
    train, held_out = (_index(store, found) for found in _find_parts(store))
    held_out = _align_classes(train, held_out)
    if all(name.isdecimal() for name in train.classes) and list(map(int, train.classes)) != sorted(
        map(int, train.classes)
    ):
        logger.warning(
            "classes are in the order of their names as text, %s, as torchvision's ImageFolder has them; "
            "numbers in tar shards count as numbers",
            ", ".join(train.classes[:4]),
        )
    n_classes = len(train.classes)
    if streams and size is None:
        size = USUAL_SIZE
    n_bytes = (len(train) + len(held_out)) * _count_bytes(train, size)
    fits = n_bytes <= MAX_IN_MEMORY and not streams
    if fits and not is_uri(root) and not (train.is_sharded or held_out.is_sharded):
        images, labels, others, other_labels = read_indexed(train, held_out, size, shorter)
        return _in_memory(
            Split(images, labels, torch.arange(len(images)), "train"),
            Split(others, other_labels, torch.arange(len(others)), "test"),
            (train, held_out),
        )
    if not size:
        raise DataError(
            f"expected the size in pixels that the images of {root} are to have ({n_bytes / 2**30:.1f} GiB); "
            f"try folders:{USUAL_SIZE}"
        )
    parts = [
        StreamedSplit(
            index, torch.from_numpy(index.labels), torch.arange(len(index)), source, size, shorter=shorter
        )
        for index, source in ((train, "train"), (held_out, "test"))
    ]
    if fits:
        return _in_memory(parts[0].in_memory(), parts[1].in_memory(), (train, held_out))
    return Photographs(parts[0], parts[1], n_classes, (train.identity, held_out.identity))


def _in_memory(train: Split, held_out: Split, indices: tuple[ImageIndex, ImageIndex]) -> Photographs:
    """Return parts in memory, from which images that cannot be read were left out before any cut."""
    identities = [
        index.identity if len(split) == len(index) else split.identify()
        for split, index in zip((train, held_out), indices, strict=True)
    ]
    return Photographs(train, held_out, len(indices[0].classes), (identities[0], identities[1]))


Part = tuple[str, list[Entry]]  # a folder, and its shards; no shards: class folders


def _find_parts(store: Store) -> tuple[Part, Part]:
    """Return where the training part and the held-out part lie."""
    entries = store.list_folder(store.root)
    folders = {entry.name: entry for entry in entries if entry.is_folder}
    held_out = [folders[name] for name in HELD_OUT if name in folders]
    if "train" in folders and held_out:
        part = next((part for part in held_out if _has_labels(store, part)), held_out[0])
        return _open_part(store, folders["train"]), _open_part(store, part)
    shards = [entry for entry in entries if not entry.is_folder and entry.name.endswith(SHARD)]
    train = [shard for shard in shards if _has_word(shard.name, ("train",))]
    others = [shard for shard in shards if _has_word(shard.name, ("val", "validation"))]
    others = others or [shard for shard in shards if _has_word(shard.name, ("test",))]
    if train and others:
        return (store.root, train), (store.root, others)
    names = ", ".join(repr(entry.name) for entry in entries[:3]) or "nothing"
    known = [OF_TORCHVISION[entry.name] for entry in entries if entry.name in OF_TORCHVISION]
    advice = f"; try --dataset {' or '.join(known)}" if known else ""
    raise DataError(
        f"expected train/<class>/<image> and test or val likewise in {store.uri}, or tar shards in place of "
        f"<class>, found {names}{', ...' if len(entries) > 3 else ''}{advice}"
    )


def _has_word(name: str, words: Sequence[str]) -> bool:
    """Return whether one of the words stands in a file's name, rather than a part of another word."""
    return any(word in words for word in re.findall("[a-z]+", name.lower()))


def _has_labels(store: Store, folder: Entry) -> bool:
    """Return whether a part has classes or shards: ImageNet's test has neither."""
    return any(entry.is_folder or entry.name.endswith(SHARD) for entry in store.list_folder(folder.path))


def _open_part(store: Store, folder: Entry) -> Part:
    entries = store.list_folder(folder.path)
    return folder.path, [entry for entry in entries if not entry.is_folder and entry.name.endswith(SHARD)]


def _index(store: Store, part: Part) -> ImageIndex:
    folder, shards = part
    return index_shards(store, folder, shards) if shards else index_folders(store, folder)


def _align_classes(train: ImageIndex, held_out: ImageIndex) -> ImageIndex:
    """Return the held-out part with its classes in the order of the training part.

    Names of folders are in alphabetical order and numbers in shards are not: 10 comes after 2 there.

    Raises:
        DataError: If they have different classes, or fewer than two.
    """
    if set(train.classes) != set(held_out.classes):
        odd = sorted(set(train.classes) ^ set(held_out.classes))[0]
        where = "train" if odd in train.classes else held_out.folder.rpartition("/")[2]
        raise DataError(
            f"expected the same classes in {train.folder} and {held_out.folder}, got {odd!r} in {where} "
            f"alone ({len(train.classes)} and {len(held_out.classes)} classes)"
        )
    if len(train.classes) < 2:
        raise DataError(f"expected at least two classes in {train.folder}, got {len(train.classes)}")
    if train.classes == held_out.classes:
        return held_out
    places = np.array([train.classes.index(name) for name in held_out.classes], np.int64)
    return replace(held_out, labels=places[held_out.labels], classes=train.classes)


def _count_bytes(index: ImageIndex, size: int | None) -> int:
    """Return the bytes of one decoded image, the first that can be read; 0 if none of the first ones can."""
    if size is not None:
        return 3 * size**2
    for content in index.read(range(min(len(index), N_LOOKED_AT))):
        with suppress(*BROKEN):
            if not isinstance(content, OSError):
                return decode(content, None).size
    return 0


def parse_size(text: str) -> tuple[int | None, int | None]:
    """Return the pixels that stand behind a data set's name.

    Returns:
        Of each side, and of the shorter one before the middle is cut out; None where it is not given.
    Raises:
        DataError: If they are no whole numbers above 0, or the second is less than the first.
    """
    if not text:
        return None, None
    parts = text.split("/")
    numbers = [int(part) for part in parts if part.isdecimal() and int(part) > 0]
    if len(numbers) != len(parts) or len(numbers) > 2 or numbers != sorted(numbers):
        raise DataError(
            f"expected a size in pixels behind folders:, got {text!r}; try folders:112, or folders:224/256 "
            "for the middle of images whose shorter side is resized to 256"
        )
    return numbers[0], numbers[1] if len(numbers) > 1 else None


def describe_place(root: Place, size: int | None, shorter: int | None = None) -> str:
    """Return the name of a data set that is known by its place alone."""
    name = (str(root) if is_uri(root) else str(Path(root).absolute())).rstrip("/").rpartition("/")[2]
    return "-".join(map(str, (name, *(pixels for pixels in (size, shorter) if pixels is not None))))
