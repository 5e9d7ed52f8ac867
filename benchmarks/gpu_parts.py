"""Pack folders and files into parts of a bounded size, and unpack them on the other side.

The parts are one compressed tar archive cut into pieces; `sha256sum -c SHA256SUMS` checks them as well.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from dirprune.errors import DataError

SUMS = "SHA256SUMS"


class _Splitter:
    """A file to write to that begins a new part where the last one has no room for what comes."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.folder, self.part_bytes = folder, part_bytes
        self.paths: list[Path] = []
        self.part: BinaryIO | None = None

    def write(self, content: bytes) -> None:
        if self.part is None or self.part.tell() + len(content) > self.part_bytes:
            self.close()
            self.paths.append(self.folder / f"part-{len(self.paths):04}")
            self.part = self.paths[-1].open("xb")
        self.part.write(content)

    def close(self) -> None:
        if self.part is not None:
            self.part.close()


class _Joined:
    """A file to read from: parts one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.part: BinaryIO | None = None

    def read(self, size: int) -> bytes:
        while True:
            if self.part is not None and (content := self.part.read(size)):
                return content
            self.close()
            if not self.paths:
                return b""
            self.part = self.paths.pop(0).open("rb")

    def close(self) -> None:
        if self.part is not None:
            self.part.close()
            self.part = None


def pack(sources: Sequence[Path], folder: Path, part_bytes: int) -> list[Path]:
    """Pack folders and files under their own names; links are packed as what they lead to.

    Args:
        sources: What to pack.
        folder: Where the parts and their checksums are written; empty or not there.
        part_bytes: Largest size of a part, >= 10,240.
    Returns:
        The parts in order.
    Raises:
        DataError: If two sources have one name or the folder holds something.
    """
    twice = [name for name, n in Counter(source.resolve().name for source in sources).items() if n > 1]
    if twice:
        raise DataError(f"expected folders and files of different names, got two of {twice[0]!r}")
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"expected an empty folder for the parts, got {folder}; try another")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        closing(_Splitter(folder, part_bytes)) as splitter,
        tarfile.open(fileobj=splitter, mode="w|gz", dereference=True, bufsize=tarfile.RECORDSIZE) as tar,
    ):
        for source in sources:
            tar.add(source, source.resolve().name)
    (folder / SUMS).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in splitter.paths))
    return splitter.paths


def unpack(folder: Path, output: Path) -> list[Path]:
    """Check the parts in a folder and unpack what they hold.

    Args:
        folder: Holds the parts and their checksums.
        output: Where the packed folders and files come to lie; what lies there under their names is replaced.
    Returns:
        The unpacked folders and files.
    Raises:
        DataError: If a part is missing or damaged; nothing is unpacked then.
    """
    if not (folder / SUMS).is_file():
        raise DataError(f"expected parts and {SUMS} in {folder}, found no {SUMS}; was packing cut off?")
    sums = dict(line.split("  ", 1)[::-1] for line in (folder / SUMS).read_text().splitlines())
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            state = "a damaged one" if path.is_file() else "none"
            raise DataError(f"expected {path} as it was packed, got {state}; send it again")
    output.mkdir(parents=True, exist_ok=True)
    tops = {}
    with (
        closing(_Joined([folder / name for name in sums])) as joined,
        tarfile.open(fileobj=joined, mode="r|gz") as tar,
    ):
        for member in tar:
            tops[member.name.partition("/")[0]] = None
            tar.extract(member, output, filter="data")
    return [output / name for name in tops]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
