"""Where each image of a set lies: a few numbers and a name for each, in arrays that processes can share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dirprune.data.images import SUFFIXES
from dirprune.data.store import Entry, Store
from dirprune.errors import DataError
from dirprune.identity import digest

N_THREADS = 8


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Where the images of one part of a data set lie, and their labels; about 60 bytes an image.

    Attributes:
        store: The place that holds them.
        folder: Path of the part in the store.
        files: Names of the files below `folder`, shape (n_files,), bytes.
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

    @property
    def is_sharded(self) -> bool:
        """Whether files hold many images each."""
        return len(self.files) < len(self)

    def path(self, place: int) -> str:
        """Return the path of the file that holds an image."""
        return f"{self.folder}/{self.files[self.file_of[place]].decode()}"

    def describe(self, place: int) -> str:
        """Return what a user calls an image: its file, and in a shard its name there."""
        if not self.is_sharded:
            return self.path(place)
        start = int(self.starts[place])
        header = self.store.read([self.path(place)], [start - 512], [start])[0]  # of the tar member
        name = header[:100].rstrip(b"\0").decode(errors="replace") if isinstance(header, bytes) else "?"
        return f"{self.path(place)}, {name}"

    def read(self, places: Sequence[int]) -> list[io.BytesIO | FileNotFoundError]:
        """Read images as they are stored.

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
    """Find the images of class folders.

    Args:
        store: Where they lie.
        folder: Holds `<class>/<image>`.
    Raises:
        DataError: If a class has no image.
    """
    classes = [entry for entry in store.list_folder(folder) if entry.is_folder]
    names: list[np.ndarray] = []
    sizes: list[np.ndarray] = []

    def list_images(entry: Entry) -> list[Entry]:
        images = [one for one in store.list_folder(entry.path) if _is_image(one)]
        if not images:
            raise DataError(
                f"expected images ({', '.join(sorted(SUFFIXES))}) of class {entry.name!r}, "
                f"found none in {entry.path}"
            )
        return images

    with ThreadPoolExecutor(N_THREADS) as pool:
        for entry, images in zip(classes, pool.map(list_images, classes), strict=True):
            names.append(np.array([f"{entry.name}/{one.name}".encode() for one in images]))
            sizes.append(np.array([one.size for one in images], np.int64))
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


def _is_image(entry: Entry) -> bool:
    return not entry.is_folder and f".{entry.name.rpartition('.')[2].lower()}" in SUFFIXES
