"""Check that a PostgreSQL can hold our schema: version, encoding, pgvector and rights, each with the SQL to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ragq.errors import ConfigurationError

POSTGRESQL = 16  # the oldest that the project supports; its tests run 18
PGVECTOR = (0, 8)  # the first with hnsw.iterative_scan

_FACTS = """
    SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS database,
           quote_ident(current_schema()) AS schema,
           coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
           (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
           OR (has_database_privilege(current_database(), 'CREATE')
               AND EXISTS (SELECT FROM pg_available_extension_versions v JOIN pg_available_extensions e
                           ON e.name = v.name AND e.default_version = v.version
                           WHERE v.name = 'vector' AND (v.trusted OR NOT v.superuser))) AS may_extend"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """Facts about a database; names are quoted for SQL, versions are pgvector's."""

    role: str
    database: str
    schema: str | None
    may_create: bool
    installed: str | None
    available: str | None
    may_extend: bool


async def check_database(connection: AsyncConnection[Any], *, is_to_change: bool) -> None:
    """Refuse a database in which the migrations cannot run.

    Args:
        is_to_change: Migrations are pending, so the right to create tables is needed.

    Raises:
        ConfigurationError: The version, the encoding, pgvector or the rights do not suffice.
    """
    if problem := find_old_server(connection.info.server_version):
        raise ConfigurationError(problem)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The encoding of the database is {encoding}, and ragq needs UTF8. The encoding of a database cannot be "
            "changed: create another with CREATE DATABASE ragq TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' "
            "LC_CTYPE 'C'; and set RAGQ_DATABASE_URL to it."
        )
    async with connection.cursor(row_factory=class_row(DatabaseFacts)) as cursor:
        facts = await (await cursor.execute(_FACTS)).fetchone()
    assert facts
    if problem := find_problem(facts, is_to_change=is_to_change):
        raise ConfigurationError(problem)


def find_old_server(version: int) -> str | None:
    """The message for a server that is too old, or None; `version` is libpq's, 160004 for 16.4."""
    if version >= POSTGRESQL * 10_000:
        return None
    return (
        f"PostgreSQL has version {version // 10_000}, and ragq needs {POSTGRESQL} or newer. Upgrade it with pg_upgrade."
    )


def find_problem(facts: DatabaseFacts, *, is_to_change: bool = True) -> str | None:
    """The problem that prevents the migrations, and how to fix it; None if there is none."""
    if facts.installed is None and facts.available is None:
        return "PostgreSQL has no pgvector: install pgvector 0.8 or newer on its machine."
    if is_old(facts.installed or facts.available or ""):
        if facts.installed and facts.available and not is_old(facts.available):
            advice = f"As a superuser, run ALTER EXTENSION vector UPDATE; in the database {facts.database}."
        else:
            advice = (
                "Install a newer pgvector on its machine. If the extension exists, run ALTER EXTENSION vector UPDATE;."
            )
        return f"pgvector is {facts.installed or facts.available}, and ragq needs 0.8 or newer. {advice}"
    return _find_missing_right(facts) if is_to_change else None


def _find_missing_right(facts: DatabaseFacts) -> str | None:
    if facts.installed is None and not facts.may_extend:
        return (
            f"The role {facts.role} may not create the extension pgvector. As a superuser, run CREATE EXTENSION vector; "
            f"in the database {facts.database}."
        )
    if facts.schema is None:
        return f"No schema of the role's search_path exists. Run CREATE SCHEMA ragq AUTHORIZATION {facts.role}; and add it."
    if not facts.may_create:
        return (
            f"The role {facts.role} may not create tables. As the owner of the schema, run GRANT CREATE ON SCHEMA "
            f"{facts.schema} TO {facts.role}; in the database {facts.database}."
        )
    return None


def is_old(version: str) -> bool:
    """Whether a version of pgvector is too old; False if it cannot be parsed."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) < PGVECTOR
