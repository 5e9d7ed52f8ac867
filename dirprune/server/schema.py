"""Which schema a tracking database has, found out without changing it.

MLflow itself upgrades a database at once that it opens and misses a table in, without a word and without a
backup, while a server of the older version may be running on it.
"""

from __future__ import annotations


def find_other_schema(uri: str) -> tuple[str | None, str] | None:
    """Return the schema that a database has and the one that this MLflow expects, where they differ.

    Args:
        uri: Address of the database, for SQLAlchemy. One without MLflow's tables differs from nothing.
    Raises:
        Exception: Whatever the drivers raise if it cannot be opened, or a driver that is missing.
    """
    import sqlalchemy
    from alembic.runtime.migration import MigrationContext
    from mlflow.store.db.utils import _get_latest_schema_revision

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            is_new = not sqlalchemy.inspect(connection).has_table("experiments")
    finally:
        engine.dispose()
    expected = _get_latest_schema_revision()
    return None if is_new or found == expected else (found, expected)
