"""Which schema a tracking database has, found out without changing it.

MLflow itself upgrades a database at once that it opens and misses a table in, without a word and without a
backup, while a server of the older version may be running on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

SETTLING_S = 3.0
"""A database that is being set up shows a new schema several times a second."""


@dataclass(frozen=True)
class OtherSchema:
    """The schema of a database that another MLflow made.

    Attributes:
        found: The database's; None if it names none.
        expected: That of this MLflow.
        is_newer: Whether a newer MLflow made it, so that this one cannot bring it to its own.
    """

    found: str | None
    expected: str
    is_newer: bool

    def advise(self, upgrade: str, choose: str) -> str:
        """Return what was expected, what came and what to try.

        Args:
            upgrade: The command that brings an older one to the expected one.
            choose: The setting that names another database.
        """
        said = f"expected the schema {self.expected} of this MLflow, got {self.found}"
        if self.is_newer:
            return f"{said} of a newer one; install the MLflow that made it, or change {choose}"
        return f"{said}; back it up, then bring it there with {upgrade}"


def find_other_schema(uri: str) -> OtherSchema | None:
    """Return the schema that a database has, if it is not the one that this MLflow expects.

    Args:
        uri: Address of the database, for SQLAlchemy. One without MLflow's tables differs from nothing; one
            that another process is setting up is waited for.
    Raises:
        Exception: Whatever the drivers raise if it cannot be opened, or a driver that is missing.
    """
    before, now = None, _compare(uri)
    while now is not None and not now.is_newer and now != before:
        time.sleep(SETTLING_S)
        before, now = now, _compare(uri)
    return now


def _compare(uri: str) -> OtherSchema | None:
    import sqlalchemy
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            is_new = not sqlalchemy.inspect(connection).has_table("experiments")
    finally:
        engine.dispose()
    migrations = ScriptDirectory.from_config(_get_alembic_config(""))
    expected = str(migrations.get_current_head())
    if is_new or found == expected:
        return None
    known = {migration.revision for migration in migrations.walk_revisions()}
    return OtherSchema(found, expected, is_newer=found is not None and found not in known)
