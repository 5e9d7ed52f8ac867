"""Optuna's storage in a relational database, where whatever fails is said in one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import _CachedStorage
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dirprune.errors import StorageError, one_line


class DatabaseStorage(_CachedStorage):
    """Optuna's relational storage behind its cache; each of its public methods may raise a StorageError.

    Optuna and SQLAlchemy have errors of their own for a full disk, a lost server or a lock. All that studies
    and trials ask and change goes through here, so that nothing else needs to know them.

    Args:
        url: SQLAlchemy's URL of the database.
        place: How errors name it.
    """

    def __init__(self, url: str, place: str) -> None:
        super().__init__(optuna.storages.RDBStorage(url))
        self.url, self.place = url, place

    def close(self) -> None:
        """Give all connections back; whoever asks again gets new ones."""
        self._backend.remove_session()
        self._backend.engine.dispose()

    def describe(self, error: Exception) -> str:
        """Return in one line, without the password, what could not be done and what the driver said."""
        cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        said = cause.orig if isinstance(cause, DBAPIError) and cause.orig else cause  # without the statement
        reason = one_line(said, has_type=True, address=self.url)
        return f"cannot read or write the trials in {self.place} ({reason})"


def _raise_storage_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of the storage that raises StorageError where Optuna or SQLAlchemy raise theirs."""

    @functools.wraps(method)
    def translated(self: DatabaseStorage, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(self.describe(error)) from None

    return translated


for _name, _method in inspect.getmembers(_CachedStorage, inspect.isfunction):
    if not _name.startswith("_"):
        setattr(DatabaseStorage, _name, _raise_storage_errors(_method))
