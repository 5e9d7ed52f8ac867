"""Images in tar shards, in the layout of WebDataset: `<key>.jpg` beside `<key>.cls`, else `<key>.json`."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dirprune.data.images import SUFFIXES
from dirprune.data.index import N_THREADS, ImageIndex
from dirprune.data.store import Entry, Store
from dirprune.errors import DataError, one_line
from dirprune.files import user_cache_folder, write_atomically
from dirprune.identity import digest

BLOCK = 512
LABELS = (".cls", ".json")
KEYS = ("label", "cls")
"""Where in a `.json` file the label is, the first that is there; it counts where there is no `.cls`."""
MAX_LABEL_BYTES = 2**16


@dataclass(frozen=True)
class _Shard:
    """What one shard holds: first byte and size of each image, shape (2, n), and its label as written."""

    places: np.ndarray
    labels: list[str]


def index_shards(store: Store, folder: str, shards: Sequence[Entry]) -> ImageIndex:
    """Find the images of tar shards; what was found is kept in the user's cache folder until one changes.

    Labels are whole numbers from 0, or names of classes, which are numbered in alphabetical order. Every
    shard is gone through once, from its beginning to its end.

    Args:
        store: Where they lie.
        folder: That holds the shards.
        shards: The files, by name.
    Raises:
        DataError: If a shard is no tar file or cut short, or an image has no label.
    """
    key = digest("shards 3", store.uri, [[shard.path, shard.size, shard.version] for shard in shards])
    stored = user_cache_folder() / "shards" / f"{key}.safetensors"
    names = np.array([shard.name.encode(errors="surrogateescape") for shard in shards])
    with suppress(OSError, SafetensorError, KeyError, ValueError):  # not there, or broken: gone through again
        with safe_open(stored, "numpy") as kept:
            arrays = {name: kept.get_tensor(name) for name in ("file_of", "starts", "sizes", "labels")}
            classes = tuple(json.loads(kept.metadata()["classes"]))
        return ImageIndex(store, folder, names, classes=classes, **arrays)
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(lambda shard: _read_shard(store, shard), shards))
    file_of = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.labels) for shard in found])
    starts, sizes = np.ascontiguousarray(np.concatenate([shard.places for shard in found], 1))
    labels, classes = _number([label for shard in found for label in shard.labels])
    with suppress(OSError, SafetensorError), write_atomically(stored) as temporary:  # no room: not kept
        save_file(
            {"file_of": file_of, "starts": starts, "sizes": sizes, "labels": labels},
            temporary,
            {"classes": json.dumps(classes)},
        )
    return ImageIndex(store, folder, names, file_of, starts, sizes, labels, classes)


def _read_shard(store: Store, entry: Entry) -> _Shard:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, dict[str, str | DataError]] = {suffix: {} for suffix in LABELS}
    with store.open(entry.path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    key, suffix = _split_name(member.name)
                    if not member.isfile():
                        continue
                    if suffix in SUFFIXES:
                        images[key] = (member.offset_data, member.size)
                    elif suffix == ".cls" or (suffix == ".json" and key not in labels[".cls"]):
                        file.seek(member.offset_data)
                        labels[suffix][key] = _parse_label(
                            file.read(min(member.size, MAX_LABEL_BYTES)), suffix, member, entry
                        )
                end = archive.offset
        except tarfile.ReadError as error:
            if images:
                raise _cut_short(entry, len(images)) from error
            raise DataError(
                f"expected an uncompressed tar shard in {entry.path}, got {one_line(error)}"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {entry.path}: {one_line(error, has_type=True)}") from error
    if entry.size - end < BLOCK:  # a tar file ends in empty blocks
        raise _cut_short(entry, len(images))
    if not images:
        raise DataError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in the shard {entry.path}, found none"
        )
    found = labels[".json"] | labels[".cls"]
    bare = [key for key in images if key not in found]
    if bare:
        raise DataError(
            f"expected a label beside each image ({' or '.join(LABELS)}) in {entry.path}, "
            f"found none for {len(bare)} of {len(images)}, the first is {bare[0]!r}"
        )
    return _Shard(np.array(list(images.values()), np.int64).T, [_accept(found[key]) for key in images])


def _split_name(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a member, which begins with the first dot of its last part."""
    folder, separator, last = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}{separator}{stem}", f"{dot}{suffix.lower()}"


def _parse_label(content: bytes, suffix: str, member: tarfile.TarInfo, entry: Entry) -> str | DataError:
    """Return a label as written, or what is wrong with a file without one, whose label may be in another."""
    label: Any = None
    with suppress(ValueError):
        if suffix == ".cls":
            label = content.decode().strip()
        else:
            parsed = json.loads(content)
            if isinstance(parsed, dict):
                label = next((parsed[key] for key in KEYS if key in parsed), None)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        where = "a number or a name" if suffix == ".cls" else f"an object with {' or '.join(map(repr, KEYS))}"
        return DataError(f"expected {where} in {member.name} of {entry.path}, got {content[:40]!r}")
    return sys.intern(str(label))


def _accept(label: str | DataError) -> str:
    if isinstance(label, DataError):
        raise label
    return label


def _number(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels as places of classes, shape (n,), int64, and the names of the classes."""
    if all(label.isdecimal() for label in labels):
        largest = max(map(int, labels))
        if largest >= len(labels):
            raise DataError(f"expected labels from 0 without gaps, got {largest} in {len(labels)} images")
        return np.array(labels).astype(np.int64), tuple(str(number) for number in range(largest + 1))
    classes = sorted(set(labels))
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[label] for label in labels], np.int64), tuple(classes)


def _cut_short(entry: Entry, n_images: int) -> DataError:
    return DataError(
        f"expected a whole tar shard in {entry.path}, got one that is cut short after {n_images} images; "
        "try copying it again"
    )
