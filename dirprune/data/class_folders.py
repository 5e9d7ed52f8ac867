"""Images in folders named by their class, read whole into memory: `{train,test}/<class>/<image>`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dirprune.errors import DataError, one_line
from dirprune.files import user_cache_folder, write_atomically
from dirprune.identity import digest

SUFFIXES = frozenset({".gif", ".jpeg", ".jpg", ".png", ".webp"})
N_IMAGES_KEPT = 10_000
"""From so many images on, what was decoded is kept in the user's cache folder: it takes many seconds."""


def has_class_folders(root: Path) -> bool:
    """Return whether a folder has the parts `train` and `test`."""
    return (root / "train").is_dir() and (root / "test").is_dir()


def read_class_folders(root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[str, ...]]:
    """Read images of equal size in colour; grey ones and palettes become colour, transparency is dropped.

    Args:
        root: Holds `train/<class>/<image>` and `test/<class>/<image>`; nothing is written there.
    Returns:
        Images of the training part, shape (n, 3, height, width), uint8; their labels, shape (n,), int64, the
        places of the classes in alphabetical order; the same of the test part; and the classes. Images are
        sorted by class and name.
    Raises:
        DataError: If there are fewer than two classes, the parts have different ones, a class is empty, or an
            image cannot be read or has another size than the first.
    """
    classes, held_out_classes = (_list_classes(root / part) for part in ("train", "test"))
    if classes != held_out_classes:
        odd = sorted(set(classes) ^ set(held_out_classes))[0]
        where = "train" if odd in classes else "test"
        raise DataError(
            f"expected the same classes in {root / 'train'} and {root / 'test'}, "
            f"got {odd!r} in {where} alone ({len(classes)} and {len(held_out_classes)} classes)"
        )
    if len(classes) < 2:
        raise DataError(f"expected at least two classes in {root / 'train'}, got {len(classes)}")
    train, train_labels = _list_images(root / "train", classes)
    held_out, held_out_labels = _list_images(root / "test", classes)
    images = _read_images([*train, *held_out])
    return images[: len(train)], train_labels, images[len(train) :], held_out_labels, classes


def _list_classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in part.iterdir() if entry.is_dir() and entry.name[0] != "."))


def _list_images(part: Path, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (part / name).iterdir()
            if path.suffix.lower() in SUFFIXES and path.name[0] != "."
        )
        if not found:
            raise DataError(
                f"expected images ({', '.join(sorted(SUFFIXES))}) of class {name!r}, "
                f"found none in {part / name}"
            )
        paths += found
        labels += [label] * len(found)
    return paths, torch.tensor(labels)


def _read_images(paths: Sequence[Path]) -> Tensor:
    """Return the images, decoded or, if none of the files has changed since, as they were decoded before."""
    if len(paths) < N_IMAGES_KEPT:
        return _decode(paths)
    stats = [path.stat() for path in paths]
    key = digest(
        [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(paths, stats, strict=True)]
    )
    stored = user_cache_folder() / "decoded" / f"{key}.safetensors"
    with suppress(OSError, SafetensorError):  # not there, or broken: decoded again
        return load_file(stored)["images"]
    images = _decode(paths)
    with suppress(OSError), write_atomically(stored) as temporary:  # without room for it: decoded every time
        save_file({"images": images}, temporary)
    return images


def _decode(paths: Sequence[Path]) -> Tensor:
    """Return the images, shape (n, 3, height, width), uint8, decoded in parallel threads."""
    first = _decode_one(paths[0])
    images = torch.empty(len(paths), *first.shape, dtype=torch.uint8)

    def fill(start: int) -> None:
        for place in range(start, min(start + n_in_turn, len(paths))):
            image = _decode_one(paths[place])
            if image.shape != first.shape:
                size, other = (f"{shape[2]} x {shape[1]}" for shape in (first.shape, image.shape))
                raise DataError(
                    f"expected images of {size} pixels, the size of {paths[0]}, got {other} in {paths[place]}"
                )
            images[place] = image

    n_in_turn = 256
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(paths), n_in_turn)):
            pass
    return images


def _decode_one(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))  # (height, width, 3)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        raise DataError(f"expected an image in {path}, got {one_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)
