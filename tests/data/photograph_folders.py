"""Small class folders and tar shards with the same images, for tests of what reads them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def write_folders(root: Path, n_train: int = 12, n_held_out: int = 6, held_out: str = "val") -> None:
    """Write images of several sizes, coloured by their class and otherwise noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", n_train), (held_out, n_held_out)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
                pixels[:, :, label] = 255
                suffix = ".jpg" if number % 2 else ".png"
                Image.fromarray(pixels).save(root / part / name / f"{number:03}{suffix}", quality=95)


def label_by_number(label: int) -> dict[str, bytes]:
    return {".cls": str(label).encode()}


def label_by_json(label: int) -> dict[str, bytes]:
    return {".json": json.dumps({"caption": "x", "label": label}).encode()}


def label_by_name(label: int) -> dict[str, bytes]:
    return {".cls": CLASSES[label].encode()}


def write_shards(
    root: Path, folders: Path, n_each: int = 10, labels: Callable[[int], dict[str, bytes]] = label_by_number
) -> None:
    """Pack class folders into shards of `n_each` images, in the order of the folders."""
    for part in sorted(path for path in folders.iterdir() if path.is_dir()):
        (root / part.name).mkdir(parents=True)
        images = sorted(part.glob("*/*"))
        for number, first in enumerate(range(0, len(images), n_each)):
            members = []
            for path in images[first : first + n_each]:
                key = f"{path.parent.name}_{path.stem}"
                members.append((f"{key}{path.suffix}", path.read_bytes()))
                members += [
                    (f"{key}{suffix}", content)
                    for suffix, content in labels(CLASSES.index(path.parent.name)).items()
                ]
            write_shard(root / part.name / f"shard-{number:06}.tar", members)


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
