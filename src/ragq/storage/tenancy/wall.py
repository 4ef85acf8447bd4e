"""The second wall between tenants: a role under which PostgreSQL itself shows one tenant's rows alone (migration 0022).

The first is the condition on `tenant_id` in our own SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

log = structlog.get_logger(__name__)

_WALL = """
    SELECT wanted.role, r.oid IS NOT NULL AS exists, coalesce(pg_has_role(session_user, r.oid, 'SET'), false) AS may_set,
           coalesce(r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, wanted.owner, 'USAGE'), false) AS bypasses,
           coalesce((SELECT bool_and(c.relrowsecurity AND has_table_privilege(r.oid, c.oid, 'DELETE')
                                     AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
                                     AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive
                                                 AND r.oid = ANY(p.polroles) AND p.polcmd IN ('*', command)))
                     FROM pg_class c CROSS JOIN unnest(ARRAY['r', 'a', 'w', 'd']::"char"[]) AS command
                     WHERE c.oid IN (SELECT polrelid FROM pg_policy) AND c.relnamespace = wanted.namespace)
                    AND has_function_privilege(r.oid, to_regprocedure('shared_stores()'), 'EXECUTE')
                    AND has_function_privilege(r.oid, to_regprocedure('is_shared_file(text)'), 'EXECUTE'), false) AS is_given,
           coalesce(row_security_active('files') AND pg_has_role(session_user, r.oid, 'USAGE'), false) AS hides_from_all,
           CASE WHEN current_setting('search_path') LIKE '%$user%'
                THEN (SELECT string_agg(quote_ident(name), ', ') FROM unnest(current_schemas(false)) AS name) END AS search_path,
           session_user::text AS login
    FROM (SELECT left(pg_get_userbyid(relowner), 56) || '_tenant' AS role, relowner AS owner, relnamespace AS namespace
          FROM pg_class WHERE oid = to_regclass('files')) AS wanted
         LEFT JOIN pg_roles r ON r.rolname = wanted.role"""
_GIVE = """
    SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %%s TO %%I', p.polrelid::regclass, %(role)s::text),
           format('ALTER POLICY %%I ON %%s TO %%I', p.polname, p.polrelid::regclass, %(role)s::text)
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE NOT p.polpermissive AND c.relnamespace = current_schema()::regnamespace"""


@dataclass(frozen=True, slots=True)
class Wall:
    """What stands of the wall.

    Attributes:
        role: Name of the role; it owns nothing and cannot log in.
        search_path: To be set with the role, because the path in force names the user; None if it does not.
        is_given: It has the tables, and the policies are for it.
        hides_from_all: The program's own user always has the role, so policies hide rows from the housekeeping.
    """

    role: str
    exists: bool
    may_set: bool
    bypasses: bool
    is_given: bool
    hides_from_all: bool
    search_path: str | None
    login: str

    @property
    def stands(self) -> bool:
        return self.exists and self.may_set and self.is_given and not self.bypasses

    @property
    def problem(self) -> str | None:
        """Why the wall is down and how to raise it; None if it stands."""
        if self.stands:
            return None
        role = _quote(self.role)
        if not (self.exists and self.may_set):
            create = "" if self.exists else f"CREATE ROLE {role} NOLOGIN; "
            return f"As an administrator of PostgreSQL, run {create}{self.grant} Then run `ragq migrate`."
        if self.bypasses:
            return (
                f"The role {role} bypasses policies. As an administrator of PostgreSQL, take SUPERUSER, BYPASSRLS and the "
                "membership in the tables' owner from it."
            )
        return (
            f"The role {role} may not use the tables: run `ragq migrate`. If this stays, run GRANT USAGE ON SCHEMA … TO {role}; as "
            "the owner of the tables' schema."
        )

    @property
    def grant(self) -> str:
        """The SQL that lets the program's user take the role when it wants to, and not always."""
        return f"GRANT {_quote(self.role)} TO {_quote(self.login)} WITH INHERIT FALSE, SET TRUE;"


async def find_wall(connection: AsyncConnection[Any]) -> Wall | None:
    """Find what stands of the wall; None before the first migration."""
    async with connection.cursor(row_factory=class_row(Wall)) as cursor:
        return await (await cursor.execute(_WALL)).fetchone()


async def raise_wall(connection: AsyncConnection[Any]) -> None:
    """Make the role and give it the tables, in the caller's transaction. Idempotent.

    Where the right to make a role is missing, the wall stays down, and the log says how to raise it.
    """
    wall = await find_wall(connection)
    assert wall
    try:
        async with connection.transaction():
            if not wall.exists:
                await connection.execute(f"CREATE ROLE {_quote(wall.role)} NOLOGIN".encode())
            if not wall.may_set:
                await connection.execute(wall.grant.encode())
            if not wall.is_given:
                await _give(connection, wall.role)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UniqueViolation):
        log.warning("tenant_wall_down", advice=wall.problem)


async def _give(connection: AsyncConnection[Any], role: str) -> None:
    """Give the role the tables and their policies; it owns nothing."""
    for grant, policy in await (await connection.execute(_GIVE, {"role": role})).fetchall():
        await connection.execute(grant)
        await connection.execute(policy)
    schema = await (await connection.execute("SELECT quote_ident(current_schema())")).fetchone()
    assert schema
    for what in (
        "SELECT, INSERT ON poison",
        "SELECT ON tenant_words",
        "EXECUTE ON FUNCTION shared_stores(), is_shared_file(text)",
        f"USAGE ON SCHEMA {schema[0]}",
    ):
        await connection.execute(f"GRANT {what} TO {_quote(role)}".encode())


def _quote(name: str) -> str:
    return sql.Identifier(name).as_string()
