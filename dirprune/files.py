"""Files that have their final name only when they are whole, and JSON files that carry their schema."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dirprune.errors import StudyError


def user_cache_folder() -> Path:
    """Return where dirprune keeps what it can make or download again; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dirprune"


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    The temporary name begins with a dot and keeps the suffix, so that a writer which goes by the suffix
    (pictures, compressed arrays) does the same as it would for `path`. Missing folders are created. Whoever
    may read new files here may read this one, also where the writer made it for its owner alone.

    Args:
        path: The final name; an existing file is replaced in one step.
    Raises:
        OSError: If the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.partial{path.suffix}")
    try:
        temporary.touch()  # the umask itself can only be read by changing it, for all threads
        mode = stat.S_IMODE(temporary.stat().st_mode)
        temporary.unlink()
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            with suppress(OSError):  # some mounts know no modes
                temporary.chmod(mode)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, payload: Mapping[str, Any], schema: int) -> None:
    """Write `payload` as an indented JSON object with its schema version first, whole or not at all.

    Args:
        path: File to write.
        payload: JSON-able content without a key "schema"; numbers must be finite.
        schema: Version of the format, >= 1.
    Raises:
        ValueError: If the payload has a key "schema" or a number that is not finite.
        TypeError: If something in the payload cannot be written as JSON.
    """
    if "schema" in payload:
        raise ValueError("the payload of a JSON file must not have a key 'schema': it is written beside it")
    text = json.dumps({"schema": schema, **payload}, indent=2, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, schema: int) -> dict[str, Any]:
    """Read what `write_json` wrote, without its schema version.

    Args:
        path: File to read.
        schema: The version that the caller understands.
    Raises:
        StudyError: If the file is missing, unreadable, not a JSON object, or of another schema.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"expected a file at {path}, found none") from None
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # both broken JSON and broken UTF-8
        raise StudyError(f"expected JSON in {path}, got something else: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(f"expected a JSON object in {path}, got a {type(content).__name__}")
    found = content.pop("schema", None)
    if found != schema:
        raise StudyError(
            f"expected schema {schema} in {path}, got {found}; "
            "it was written by another version of dirprune or by another program"
        )
    return content
