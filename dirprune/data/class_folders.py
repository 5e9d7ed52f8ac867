"""Images in folders named by their class, read whole into memory: `{train,test|val}/<class>/<image>`."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dirprune.data.images import BROKEN, count_bearable, decode, describe_broken, refuse_broken
from dirprune.data.index import ImageIndex, index_folders
from dirprune.data.store import Store
from dirprune.errors import DataError, printable
from dirprune.files import user_cache_folder, write_atomically
from dirprune.identity import digest

logger = logging.getLogger("dirprune.data")

HELD_OUT = ("test", "val", "validation")
"""Names of the held-out part's folder: the first that is there and has classes."""
N_IMAGES_KEPT = 10_000
"""From so many images on, what was decoded is kept in the user's cache folder: it takes many seconds."""
ORIGIN = "origin"
"""Where a kept file says of which folder, in which size and on which machine its images were decoded."""


def has_class_folders(root: Path) -> bool:
    """Return whether a folder has the parts `train` and `test`, or `val`."""
    return (root / "train").is_dir() and _find_held_out(root).is_dir()


def _find_held_out(root: Path) -> Path:
    parts = [root / name for name in HELD_OUT]
    there = [part for part in parts if part.is_dir()]  # ImageNet's test has no labels, and so no folders
    has_classes = (
        part for part in there if any(one.is_dir() and one.name[0] != "." for one in part.iterdir())
    )
    return next(has_classes, (there or parts)[0])


def read_class_folders(
    root: Path, size: int | None = None, shorter: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[str, ...]]:
    """Read images in colour; grey ones and palettes become colour, transparency is dropped.

    An image that cannot be read is left out with a warning, as long as they are few.

    Args:
        root: Holds `train/<class>/<image>` and `test/<class>/<image>` (or `val`); nothing is written there.
        size: Pixels of each side of the middle that is cut out of each image; None: the images are of equal
            size and stay as they are.
        shorter: Pixels to which its shorter side is resized before; None: to `size`.
    Returns:
        Images of the training part, shape (n, 3, height, width), uint8; their labels, shape (n,), int64, the
        places of the classes in alphabetical order; the same of the test part; and the classes. Images are
        sorted by class and name.
    Raises:
        DataError: If there are fewer than two classes, the parts have different ones, a class is empty, more
            than one and more than 1% of the images cannot be read, or one has another size than the first.
    """
    store = Store(str(root))
    train, held_out = (index_folders(store, str(part)) for part in (root / "train", _find_held_out(root)))
    if train.classes != held_out.classes:
        odd = sorted(set(train.classes) ^ set(held_out.classes))[0]
        where = "train" if odd in train.classes else Path(held_out.folder).name
        raise DataError(
            f"expected the same classes in {train.folder} and {held_out.folder}, "
            f"got {odd!r} in {where} alone ({len(train.classes)} and {len(held_out.classes)} classes)"
        )
    if len(train.classes) < 2:
        raise DataError(f"expected at least two classes in {train.folder}, got {len(train.classes)}")
    return (*read_indexed(train, held_out, size, shorter), train.classes)


def read_indexed(
    train: ImageIndex, held_out: ImageIndex, size: int | None, shorter: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the images of two parts in class folders of this machine, see `read_class_folders`."""
    parts = (train, held_out)
    images, is_whole = _read_images(
        [Path(part.path(n)) for part in parts for n in range(len(part))], size, shorter
    )
    read: list[Tensor] = []
    for part, own, is_there in zip(
        parts,
        images.split([len(train), len(held_out)]),
        is_whole.split([len(train), len(held_out)]),
        strict=True,
    ):
        if not is_there.any():
            raise DataError(f"expected images that can be read in {part.folder}, all {len(part)} are broken")
        labels = torch.from_numpy(part.labels)
        read += [own, labels] if is_there.all() else [own[is_there], labels[is_there]]
    return read[0], read[1], read[2], read[3]


def _read_images(paths: Sequence[Path], size: int | None, shorter: int | None) -> tuple[Tensor, Tensor]:
    """Return the images, decoded or, if none of the files has changed since, as they were decoded before.

    Returns:
        Shape (n, 3, height, width), uint8, and whether each could be read, shape (n,).
    """
    if len(paths) < N_IMAGES_KEPT:
        return _decode(paths, size, shorter)
    key = digest(
        [_identify_file(path) for path in paths],
        size,
        *([] if shorter is None else [shorter]),
    )
    stored = user_cache_folder() / "decoded" / f"{key}.safetensors"
    with suppress(OSError, SafetensorError):  # not there, or broken: decoded again
        kept = load_file(stored)
        is_whole = kept.get("is_whole", torch.ones(len(paths), dtype=torch.bool))
        if not is_whole.all():
            gone = (~is_whole).nonzero().flatten().tolist()
            _warn_of_broken(len(gone), len(paths), printable(f"{paths[gone[0]]} cannot be read"))
        return kept["images"], is_whole
    images, is_whole = _decode(paths, size, shorter)
    folder = str(Path(os.path.commonpath(paths)).absolute())
    origin = digest(folder, size, shorter, platform.node())  # another machine's folder may hold other files
    _remove_older(stored, origin)
    with suppress(OSError, SafetensorError), write_atomically(stored) as temporary:  # no room: not kept
        save_file({"images": images, "is_whole": is_whole}, temporary, {ORIGIN: origin})
    return images, is_whole


def _remove_older(stored: Path, origin: str) -> None:
    """Remove what was kept of the same images before one of their files changed."""
    for other in stored.parent.glob("[!.]*.safetensors"):  # with a dot in front it is still being written
        with suppress(OSError, SafetensorError):
            with safe_open(other, "pt") as kept:
                is_same = (kept.metadata() or {}).get(ORIGIN) == origin
            if is_same and other != stored:
                other.unlink()


def _identify_file(path: Path) -> tuple[str, int, int]:
    """Return what changes with a file's content; zeros of one that leads nowhere, which is left out."""
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), stat.st_size, stat.st_mtime_ns


def _decode(paths: Sequence[Path], size: int | None, shorter: int | None) -> tuple[Tensor, Tensor]:
    """Return the images as `_read_images` does, decoded in parallel threads."""
    broken: dict[int, str] = {}
    first, example = _find_first(paths, size, shorter)
    images = torch.zeros(len(paths), *first.shape, dtype=torch.uint8)

    def fill(start: int) -> None:
        for place in range(start, min(start + n_in_turn, len(paths))):
            try:
                image = torch.from_numpy(decode(paths[place], size, shorter))
            except BROKEN as error:
                broken[place] = describe_broken(str(paths[place]), error, paths[place])
                if len(broken) > count_bearable(len(paths)):
                    raise refuse_broken([broken[place] for place in sorted(broken)], len(paths)) from error
                continue
            if image.shape != first.shape:
                expected, other = (f"{shape[2]} x {shape[1]}" for shape in (first.shape, image.shape))
                raise DataError(
                    f"expected images of {expected} pixels, the size of {example}, got {other} in "
                    f"{paths[place]}; try folders:{min(first.shape[1:])}, which resizes them"
                )
            images[place] = image

    n_in_turn = 256
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(paths), n_in_turn)):
            pass
    is_whole = torch.ones(len(paths), dtype=torch.bool)
    is_whole[list(broken)] = False
    if broken:
        _warn_of_broken(len(broken), len(paths), broken[min(broken)])
    return images, is_whole


def _warn_of_broken(n_broken: int, n_images: int, example: str) -> None:
    logger.warning("%d of %d images left out: %s", n_broken, n_images, example)


def _find_first(paths: Sequence[Path], size: int | None, shorter: int | None) -> tuple[Tensor, Path]:
    """Return the first image that can be read, as far as they are looked for, and its path."""
    reasons: list[str] = []
    for path in paths[: 1 + int(count_bearable(len(paths)))]:
        try:
            return torch.from_numpy(decode(path, size, shorter)), path
        except BROKEN as error:
            reasons.append(describe_broken(str(path), error, path))
    raise refuse_broken(reasons, len(paths))
