"""Where each image of a set lies: a few numbers and a name for each, in arrays that processes can share."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from dirprune.data.images import SUFFIXES
from dirprune.data.store import Entry, Store
from dirprune.errors import DataError, printable
from dirprune.identity import digest

logger = logging.getLogger("dirprune.data")

N_THREADS = 8
N_KINDS = 3
"""Endings of names that are told of files which are passed over."""


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Where the images of one part of a data set lie, and their labels; about 60 bytes an image.

    Attributes:
        store: The place that holds them.
        folder: Path of the part in the store.
        files: Names of the files below `folder`, shape (n_files,), bytes, UTF-8 or not.
        file_of: The file that holds each image, shape (n,), int32.
        starts: First byte of each image in its file, shape (n,), int64.
        sizes: Bytes of each image, shape (n,), int64.
        labels: Places of the classes, shape (n,), int64.
        classes: Names of the classes, in order.
        broken: Images that could not be read so far, by place; grows.
    """

    store: Store
    folder: str
    files: np.ndarray
    file_of: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    broken: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Return sizes in one line: the names of all files would fill pages."""
        return (
            f"ImageIndex({self.folder!r}, {len(self)} images in {len(self.files)} files, "
            f"{len(self.classes)} classes, {len(self.broken)} broken)"
        )

    @property
    def is_sharded(self) -> bool:
        """Whether files hold many images each."""
        return len(self.files) < len(self)

    def path(self, place: int) -> str:
        """Return the path of the file that holds an image."""
        name = self.files[self.file_of[place]].decode(errors="surrogateescape")
        return f"{self.folder}/{name}"

    def describe(self, place: int) -> str:
        """Return what a user calls an image: its file, and in a shard its name there."""
        if not self.is_sharded:
            return self.path(place)
        start = int(self.starts[place])
        header = self.store.read([self.path(place)], [start - 512], [start])[0]  # of the tar member
        name = header[:100].rstrip(b"\0").decode(errors="replace") if isinstance(header, bytes) else "?"
        return f"{self.path(place)}, {name}"

    def read(self, places: Sequence[int]) -> list[io.BytesIO | OSError]:
        """Read images as they are stored, or learn why a file cannot be read; see `Store.read`.

        Raises:
            DataError: If the store does not answer.
        """
        starts = self.starts[places]
        answers = self.store.read(
            [self.path(place) for place in places], starts.tolist(), (starts + self.sizes[places]).tolist()
        )
        return [io.BytesIO(answer) if isinstance(answer, bytes) else answer for answer in answers]

    @cached_property
    def identity(self) -> str:
        """A hash of labels and sizes of the images in their order, in folders and in shards alike."""
        return digest(self.labels, self.sizes)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of names, sizes, places in files and labels, wherever the files lie."""
        arrays = (self.files, self.file_of, self.starts, self.sizes, self.labels)
        return digest(list(self.classes), *arrays)


def index_folders(store: Store, folder: str) -> ImageIndex:
    """Find the images of class folders, in the order of torchvision's `ImageFolder`.

    Folders in those of a class belong to it. What is no image by the end of its name is passed over, and one
    line says so.

    Args:
        store: Where they lie.
        folder: Holds `<class>/<image>` or `<class>/<any folders>/<image>`.
    Raises:
        DataError: If a class has no image.
    """
    classes = [entry for entry in store.list_folder(folder) if entry.is_folder]
    names: list[np.ndarray] = []
    sizes: list[np.ndarray] = []

    passed_over: Counter[str] = Counter()

    def list_images(entry: Entry) -> tuple[list[Entry], list[str]]:
        files = sorted(_walk(store, entry.path), key=lambda one: one.path.rpartition("/")[::2])
        images = [one for one in files if _suffix(one) in SUFFIXES]
        if not images:
            raise DataError(
                f"expected images ({', '.join(sorted(SUFFIXES))}) of class {entry.name!r}, "
                f"found none in {entry.path}"
            )
        return images, [_suffix(one) for one in files if _suffix(one) not in SUFFIXES]

    with ThreadPoolExecutor(N_THREADS) as pool:
        for entry, (images, others) in zip(classes, pool.map(list_images, classes), strict=True):
            below = [f"{entry.name}{one.path[len(entry.path) :]}" for one in images]
            names.append(np.array([name.encode(errors="surrogateescape") for name in below]))
            sizes.append(np.array([one.size for one in images], np.int64))
            passed_over.update(others)
    if passed_over:
        kinds = ", ".join(
            f"{count} {suffix or 'without'}" for suffix, count in passed_over.most_common(N_KINDS)
        )
        logger.warning(
            "%d files in %s are passed over, as they do not end in %s: %s%s",
            passed_over.total(),
            printable(folder),
            ", ".join(sorted(SUFFIXES)),
            printable(kinds),
            " and others" if len(passed_over) > N_KINDS else "",
        )
    counts = [len(one) for one in sizes]
    n = sum(counts)
    return ImageIndex(
        store,
        folder,
        np.concatenate(names) if names else np.empty(0, "S1"),
        np.arange(n, dtype=np.int32),
        np.zeros(n, np.int64),
        np.concatenate(sizes) if sizes else np.empty(0, np.int64),
        np.repeat(np.arange(len(classes)), counts),
        tuple(entry.name for entry in classes),
    )


def _walk(store: Store, folder: str, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Yield the files in a folder and in those that it holds, but for a link to a folder above it."""
    real = os.path.realpath(folder) if store.is_local else folder
    if real in above:
        return
    entries = store.list_folder(folder)
    yield from (entry for entry in entries if not entry.is_folder)
    for entry in entries:
        if entry.is_folder:
            yield from _walk(store, entry.path, (*above, real))


def _suffix(entry: Entry) -> str:
    return PurePosixPath(entry.name).suffix.lower()
