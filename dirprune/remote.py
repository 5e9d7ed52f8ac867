"""A folder on a network file system or in an object store, which several machines read and write."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dirprune.addresses import describe_address, holds_login, is_doubtful
from dirprune.errors import ConfigurationError, StorageError, one_line
from dirprune.files import write_atomically

PATIENCE_S = 120.0
PATIENCE_VARIABLE = "DIRPRUNE_STORAGE_PATIENCE"
"""The environment variable that says otherwise, in seconds."""
PAUSE_S = 0.2
MAX_PAUSE_S = 5.0
PROTOCOLS = ("file", "s3", "gs", "gcs", "az", "abfs")  # each process has a memory:// of its own
DATABASES = ("sqlite", "postgresql", "mysql", "redis")

Answer = TypeVar("Answer")


def find_patience() -> float:
    """Return for how many seconds a storage that fails is tried again.

    Raises:
        ConfigurationError: If the environment says something else than seconds.
    """
    said = os.environ.get(PATIENCE_VARIABLE) or str(PATIENCE_S)
    with suppress(ValueError):
        if math.isfinite(seconds := float(said)) and seconds >= 0:
            return seconds
    raise ConfigurationError(f"expected seconds in {PATIENCE_VARIABLE}, got {said!r}; try {PATIENCE_S:g}")


@dataclass(frozen=True)
class RemoteFolder:
    """Whole files by name below one address; what is written appears whole or not at all.

    It holds no connection: fsspec keeps one for each process. Whatever goes wrong on the way there is tried
    again for `patience_s`, so that a store that is restarted costs nothing but time.

    Attributes:
        uri: A local path, or an address such as s3://bucket/studies.
        patience_s: Seconds for which each operation is tried again.

    Raises:
        ConfigurationError: As `find_patience` does, where none is given.
    """

    uri: str
    patience_s: float = field(default_factory=find_patience)

    def check(self) -> None:
        """Find what is wrong with the address, without asking the store.

        Raises:
            ConfigurationError: If it is of no kind that can be opened, or holds a secret.
        """
        refuse_secret(self.uri, "--storage")
        protocol, separator, rest = self.uri.partition("://")
        if separator and protocol.partition("+")[0] in DATABASES:
            raise ConfigurationError(
                f"expected a folder or an object store for --storage, got a {protocol} database; "
                "the database of the trials is --optuna-storage"
            )
        if separator and protocol not in PROTOCOLS:
            raise ConfigurationError(
                f"expected a folder or an address such as s3://bucket/studies for --storage, "
                f"got {describe_address(self.uri)}"
            )
        if separator and not rest.strip("/"):
            raise ConfigurationError(f"expected a bucket or a folder in --storage, got {self.uri}")
        try:
            self._open()
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"--storage {self.uri} cannot be opened ({one_line(error)}); "
                "try pip install 'dirprune[s3]' for s3://"
            ) from error

    def below(self, name: str) -> RemoteFolder:
        """Return a folder below this one."""
        return RemoteFolder(f"{self.uri.rstrip('/')}/{name}", self.patience_s)

    def write(self, name: str, content: bytes) -> None:
        """Write a file.

        Raises:
            StorageError: If it cannot be written, also when tried again.
        """
        files, root = self._open()
        path = f"{root}/{name}"

        def put() -> None:
            if "file" in _protocols(files):
                with write_atomically(Path(path)) as temporary:
                    temporary.write_bytes(content)
            else:
                files.pipe_file(path, content)

        self._persist("write to", put)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file.

        Raises:
            StorageError: If the store does not answer, also when asked again.
        """
        files, root = self._open()

        def get() -> bytes | None:
            with suppress(FileNotFoundError):
                return bytes(files.cat_file(f"{root}/{name}"))
            return None

        return self._persist("read from", get)

    def list(self, name: str = "") -> list[str]:
        """Return the names of all files below a name, sorted, but for hidden ones; none if it is not there.

        Raises:
            StorageError: As `read` does.
        """
        files, root = self._open()

        def find() -> list[str]:
            with suppress(FileNotFoundError):
                found = files.find(f"{root}/{name}".rstrip("/"))
                names = sorted(path.removeprefix(f"{root}/") for path in found)
                return [name for name in names if not any(part[0] == "." for part in name.split("/"))]
            return []

        return self._persist("read from", find)

    def remove(self, name: str) -> None:
        """Remove a file, or all below a name; nothing need be there.

        Raises:
            StorageError: As `write` does.
        """
        files, root = self._open()

        def delete() -> None:
            with suppress(FileNotFoundError):
                files.rm(f"{root}/{name}", recursive=True)

        self._persist("write to", delete)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        place = self.uri if "://" in self.uri else str(Path(self.uri).absolute())
        options = {
            "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}
        }
        more = options if place.startswith("s3://") else {}
        files, root = fsspec.core.url_to_fs(place, use_listings_cache=False, **more)
        return files, str(root).rstrip("/")

    def _persist(self, verb: str, call: Callable[[], Answer]) -> Answer:
        deadline, pause = time.monotonic() + self.patience_s, PAUSE_S
        while True:
            try:
                return call()
            except Exception as error:  # each store has its own kinds
                is_final = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
                if is_final or time.monotonic() + pause > deadline:
                    reason = one_line(error, has_type=True)
                    raise StorageError(f"cannot {verb} the storage {self.uri} ({reason})") from error
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_S)


def refuse_secret(uri: str, option: str) -> None:
    """Refuse an address that holds a key or a password: it would be shown, stored and logged.

    Args:
        uri: An address such as s3://bucket/studies, or a path.
        option: Where it was given.
    Raises:
        ConfigurationError: Without the secret.
    """
    protocol, separator, _ = uri.partition("://")
    if separator and holds_login(uri) and not is_doubtful(uri):
        raise ConfigurationError(
            f"expected {option} without a password, got one in {protocol}://...; "
            "give it in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
