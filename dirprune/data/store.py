"""Places that hold files: a local folder or an object store, behind fsspec."""

from __future__ import annotations

import difflib
import errno
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dirprune.addresses import describe_address
from dirprune.errors import DataError, one_line, suggest

Place = Path | str
"""A folder, or a URI such as s3://bucket/images."""
N_TRIES = 4
VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
PAUSE_S = 0.5
"""Before the second try; twice as long before each further one."""
OF_ONE_FILE = (
    errno.EACCES,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
)
"""What a system says of one file, however often it is asked."""
OF_ONE_FILE_PERHAPS = (errno.EBADMSG, errno.EIO, errno.ESTALE)
"""What it says of a broken place on a disk, and for a while of a disk in the network: worth further tries."""


def is_uri(root: Place) -> bool:
    """Return whether this names a place by its protocol, such as s3://bucket/images."""
    return isinstance(root, str) and "://" in root


@dataclass(frozen=True)
class Entry:
    """One file or folder.

    Attributes:
        path: As the store writes it.
        size: In bytes; 0 of folders.
        is_folder: Whether it is one.
        version: What changes with the content: a check sum, or when it was written.
    """

    path: str
    size: int
    is_folder: bool
    version: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Store:
    """A folder, local or in an object store.

    It holds no connection: fsspec keeps one for each process and thread.

    Attributes:
        uri: Its address, or a local path.
    """

    uri: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return not is_uri(self.uri)

    @property
    def _opened(self) -> tuple[Any, str]:
        """Return fsspec's file system and the folder's path in it."""
        if self.is_local:
            return LocalFileSystem(), str(Path(self.uri).absolute())
        protocol = self.uri.partition("://")[0]
        try:
            return fsspec.core.url_to_fs(self.uri, use_listings_cache=False)
        except ImportError as error:
            raise DataError(
                f"expected the package that reads {protocol}://, got none ({one_line(error)})"
            ) from error
        except ValueError as error:
            known = suggest(protocol, ["file", "s3", "gs", "az", "https"])
            raise DataError(f"unknown kind of place {protocol}:// ({one_line(error)}){known}") from error

    @property
    def root(self) -> str:
        """The folder's path as the store writes it."""
        return str(self._opened[1]).rstrip("/")

    def list_folder(self, path: str) -> list[Entry]:
        """Return what lies directly in a folder, sorted by name, without what begins with a dot.

        Raises:
            DataError: If it is not there or cannot be listed.
        """
        try:
            entries = _list_local(path) if self.is_local else self._list_remote(path)
        except FileNotFoundError:
            raise DataError(
                f"expected data in {describe_address(self.uri)}, found nothing there{self._near()}"
            ) from None
        except DataError:
            raise
        except Exception as error:  # each store has its own kinds
            said = one_line(error, has_type=True, address=self.uri)
            raise DataError(f"cannot list {describe_address(self.uri)}: {said}") from error
        return sorted((e for e in entries if e.name[:1] not in ("", ".")), key=lambda entry: entry.name)

    def _list_remote(self, path: str) -> list[Entry]:
        return [
            Entry(
                one["name"].rstrip("/"),
                int(one.get("size") or 0),
                one["type"] == "directory",
                str(next((one[key] for key in VERSIONS if key in one), "")),
            )
            for one in self._opened[0].ls(path, detail=True)
            if one["name"].rstrip("/") != path.rstrip("/")
        ]

    def _near(self) -> str:
        """Return a hint at the folder that was probably meant."""
        above, _, name = self.root.rpartition("/")
        known: list[str] = []
        with suppress(Exception):  # a hint is worth no second error
            known = [
                str(one).rstrip("/").rpartition("/")[2] for one in self._opened[0].ls(above, detail=False)
            ]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"; did you mean {near[0]!r}?" if near else "; check the spelling and your rights"

    def open(self, path: str) -> Any:
        """Open a file for reading from its beginning on, with seeks.

        Raises:
            DataError: If it cannot be opened.
        """
        try:
            if self.is_local:
                return Path(path).open("rb")
            return self._opened[0].open(path, "rb", block_size=2**22, cache_type="readahead")
        except OSError as error:
            said = one_line(error, has_type=True, address=self.uri)
            raise DataError(f"cannot read {path}: {said}") from error

    def read(self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes | OSError]:
        """Read parts of files, from an object store all at once.

        What is wrong with one file of this machine is left to the caller, who counts such files: where a
        whole disk is away, they are too many.

        Args:
            paths: The files.
            starts: First byte of each part.
            ends: Its last byte, plus one.
        Returns:
            What was read, or that the file is not there; of a file of this machine also whatever else keeps
            it from being read: rights, a link that leads back to itself, a broken place on the disk.
        Raises:
            DataError: If a part cannot be read for another reason, after `N_TRIES` tries.
        """
        answers: list[Any] = [None] * len(paths)
        missing = list(range(len(paths)))
        for attempt in range(N_TRIES):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            chosen = ([values[place] for place in missing] for values in (paths, starts, ends))
            for place, answer in zip(
                missing, self._opened[0].cat_ranges(*chosen, on_error="return"), strict=True
            ):
                answers[place] = answer
            missing = [place for place in missing if self._is_worth_a_try(answers[place])]
            if not missing:
                return answers
        missing = [place for place in missing if not self._is_of_one_file(answers[place])]
        if not missing:
            return answers
        reason = one_line(answers[missing[0]], has_type=True)
        raise DataError(f"cannot read {paths[missing[0]]}, tried {N_TRIES} times: {reason}")

    def _is_worth_a_try(self, answer: object) -> bool:
        """Return whether what came for a part is an error that may be none the next time."""
        if not isinstance(answer, Exception) or isinstance(answer, FileNotFoundError):
            return False
        return not (self.is_local and isinstance(answer, OSError) and answer.errno in OF_ONE_FILE)

    def _is_of_one_file(self, answer: object) -> bool:
        """Return whether an error that has not gone away is one of this file rather than of the store."""
        return self.is_local and isinstance(answer, OSError) and answer.errno in OF_ONE_FILE_PERHAPS


def _list_local(path: str) -> list[Entry]:
    """Return what lies in a folder; a link counts as what it leads to, which fsspec does not look at."""
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except OSError:  # a link to nothing: whoever reads it will say so
                found.append(Entry(entry.path, 0, False, ""))
                continue
            found.append(Entry(entry.path, stat.st_size, entry.is_dir(), str(stat.st_mtime_ns)))
    return found
