"""The second wall: PostgreSQL itself keeps tenants apart when our own SQL does not."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Rollback

from ragq.accounts.payer import Payer
from ragq.accounts.views import TenantView, Viewer
from ragq.errors import RagqError
from ragq.storage.database import Database
from ragq.storage.search.chunks import Chunks, Scope
from ragq.storage.tenancy.access import TenantAccess
from ragq.storage.tenancy.connection import Entry
from ragq.storage.tenancy.shares import StoreShares
from ragq.storage.tenancy.wall import Wall, find_wall
from tests.filled_tenant import FOREIGN, GUEST, OURS, SECRET, VECTOR, Filled, empty, find_methods, modules

OF_NO_TENANT = {"facts", "migrations", "poison", "usage_positions"}


@pytest.fixture
async def filled(database: Database, settings: Any) -> AsyncIterator[Filled]:
    others = {"settings": settings, "issuer": "https://issuer.example", "database": database}

    def make(owner: type) -> Any:
        return owner(
            **{name: others[name] for name in inspect.signature(owner).parameters if not name.startswith("replica")}
        )

    filled = Filled(database, make)
    await filled.fill()
    yield filled
    await empty(database, OURS)


@contextlib.contextmanager
def behind_our_wall() -> Iterator[None]:
    """Leave the foreign tenant in every statement's parameters, and set ours for row-level security."""
    entry = TenantAccess._entry

    def entry_of_ours(access: TenantAccess, wall: Wall | None) -> Entry:
        return entry(access, wall)._replace(tenant=OURS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TenantAccess, "_entry", entry_of_ours)
        yield


@contextlib.contextmanager
def recorded_doors() -> Iterator[set[tuple[str, int]]]:
    """Record (file, line) of each place that opens the door of a tenant."""
    reached, for_tenant = set[tuple[str, int]](), Database.for_tenant

    def recording(database: Database, viewer: Viewer) -> TenantAccess:
        caller = sys._getframe(1)
        reached.add((caller.f_code.co_filename, caller.f_lineno))
        return for_tenant(database, viewer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "for_tenant", recording)
        yield reached


def find_doors() -> set[tuple[str, int]]:
    """(file, line) of each place in the storage that opens the door of a tenant."""
    return {
        (module.__file__, node.lineno)
        for module in modules()
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "for_tenant"
    }


def shows_nothing(result: Any) -> bool:
    if isinstance(result, Scope):
        return not result.parameters["stores"]
    if isinstance(result, Payer):
        return not result.limits.documents
    return not result or str(result).startswith("vsfb_")  # a new id, though nothing was made


@pytest.mark.timeout(300)
async def test_without_our_condition_row_security_alone_shows_and_changes_nothing_foreign(filled: Filled) -> None:
    unproven, before = [], await filled.look()
    with recorded_doors() as reached:
        for method in find_methods():
            if await filled.look() != before:  # the last method changed something
                await filled.fill()
                before = await filled.look()
            with behind_our_wall():
                try:
                    result = await filled.call(method)
                except (RagqError, psycopg.errors.InsufficientPrivilege):
                    result = None
            assert shows_nothing(result), (method.label, result)
            assert await filled.look() == before, method.label
            result = await filled.call(method)
            if shows_nothing(result) and await filled.look() == before:
                unproven.append(method.label)
    assert unproven == [], "these show nothing to the foreign tenant itself: give them other values"
    assert find_doors() - reached == set(), "a statement is tried by no method here"


async def test_not_even_a_statement_without_any_condition_reaches_foreign_rows(filled: Filled) -> None:
    before = await filled.look()
    assert all(before.values()), "each table has a foreign row"
    for table in before:
        async with filled.database.for_tenant(OURS).transaction() as connection:
            for statement in (f"SELECT FROM {table} FOR UPDATE", f"DELETE FROM {table}"):
                changed = await connection.execute(statement)
                assert changed.rowcount == (1 if table == "tenants" else 0), statement
            raise Rollback
    row = await filled.database.for_tenant(OURS).row("SELECT count(*) AS found FROM tenant_words")
    assert row == {"found": 0}
    assert await filled.look() == before


async def test_a_shared_store_is_read_and_not_changed(filled: Filled) -> None:
    before = await filled.look()
    of_store = {"vector_stores": 1, "vector_store_files": 3, "files": 3, "chunks": 1, "store_shares": 1}
    for table in before:
        async with filled.database.for_tenant(GUEST).transaction() as connection:
            found = await connection.execute(f"SELECT FROM {table}")
            assert found.rowcount == of_store.get(table, 1 if table == "tenants" else 0), table
            if table in of_store:
                for statement in (
                    f"SELECT FROM {table} FOR UPDATE",
                    f"DELETE FROM {table}",
                    f"UPDATE {table} SET tenant_id = '{GUEST}'",
                ):
                    changed = await connection.execute(statement)
                    assert changed.rowcount == 0, statement
    stolen = "INSERT INTO store_shares SELECT vector_store_id, %(tenant)s, tenant_id FROM store_shares ON CONFLICT DO NOTHING"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await filled.database.for_tenant(GUEST).row(stolen + " RETURNING tenant_id")
    assert await filled.look() == before


async def test_a_shared_store_is_searched_as_long_as_it_is_shared(filled: Filled) -> None:
    chunks, guest = filled.make(Chunks), TenantView(GUEST, shares=True)
    await filled.execute("UPDATE vector_stores SET last_active_at = now() - interval '1 hour'")
    scope = await chunks.find_scope(guest, [filled.values["store_id"]], SECRET)
    (found,) = await chunks.search(scope, VECTOR, limit=5)
    assert found.text == SECRET
    before = replace(found, start=found.start - 1, end=found.end - 1)
    assert await chunks.read_next(guest, scope.parameters["stores"], before) == replace(
        found, score=0.0, similarity=None
    )
    active = "SELECT last_active_at > now() - interval '1 minute' AS active FROM vector_stores WHERE id = %(id)s"
    assert await filled.database.for_all().row(active, id=filled.values["store_id"]) == {"active": True}
    await filled.make(StoreShares).delete(FOREIGN, filled.values["store_id"], GUEST)
    assert await chunks.search(scope, VECTOR, limit=5) == []
    assert await chunks.read_next(guest, scope.parameters["stores"], before) is None


async def test_doors_in_one_transaction_show_each_its_rows(filled: Filled) -> None:
    database, count = filled.database, "SELECT count(*) AS found FROM tenants"
    async with database.transaction():
        assert await database.for_tenant(FOREIGN).row(count) == {"found": 1}
        assert await database.for_all().row(count) == {"found": 3}
        async with database.for_tenant(OURS).transaction() as connection:
            undone = await connection.execute("DELETE FROM tenants WHERE id = %s", [OURS])
            assert undone.rowcount == 1
            raise Rollback
        assert await database.for_tenant(OURS).row(count) == {"found": 1}
    assert await database.for_all().row(count + " WHERE current_setting('ragq.tenant', true) = ''") == {"found": 3}


async def test_each_table_has_a_policy_or_is_of_no_tenant(database: Database) -> None:
    async with database.for_all().connection() as connection:
        found = await connection.execute("""SELECT relname::text, relrowsecurity FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'""")
        assert {name for name, has_policy in await found.fetchall() if not has_policy} == OF_NO_TENANT


WHO = """SELECT current_user = session_user AS is_owner, current_user LIKE '%%!_tenant' ESCAPE '!' AS is_role,
                coalesce(current_setting('ragq.tenant', true), '') AS tenant"""


OUTSIDE_OF_BOTH = {"is_owner": True, "is_role": False, "tenant": ""}


def behind_both_walls(tenant: str) -> dict[str, Any]:
    return {"is_owner": False, "is_role": True, "tenant": tenant}


async def read(database: Database, tenant: str) -> None:
    assert await database.for_tenant(tenant).row(WHO) == behind_both_walls(tenant)


async def read_all(database: Database, _: str = "") -> None:
    assert await database.for_all().row(WHO) == OUTSIDE_OF_BOTH


async def fail(database: Database, tenant: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await database.for_tenant(tenant).row("SELECT 1 / 0")


async def give_up(database: Database, tenant: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await database.for_tenant(tenant).row("SELECT pg_sleep(5)")


async def undo(database: Database, tenant: str) -> None:
    async with database.for_tenant(tenant).transaction() as connection:
        assert await (await connection.execute(WHO)).fetchone() == (False, True, tenant)
        raise Rollback


async def use_both_doors(database: Database, tenant: str) -> None:
    async with database.transaction():
        await read(database, tenant)
        await read_all(database)


async def copy(database: Database, tenant: str) -> None:
    async with database.for_tenant(tenant).copying() as (connection, end_copying):
        assert await (await connection.execute(WHO)).fetchone() == (True, False, tenant)
        await end_copying()
        assert await (await connection.execute(WHO)).fetchone() == (False, True, tenant)


@pytest.mark.usefixtures("database")  # which is migrated
async def test_each_door_shows_its_rows_whatever_its_connection_did_before(settings: Any, database_url: str) -> None:
    database = await Database.open(settings, database_url, connections=1)
    uses: list[Callable[[Database, str], Awaitable[None]]] = [read, read_all, fail, give_up, undo, use_both_doors, copy]
    for before, after in itertools.product(uses, uses):
        for tenant in (OURS, FOREIGN):
            await before(database, OURS)
            await after(database, tenant)
            seen = [await door.row(WHO) for door in (database.for_tenant(tenant), database.for_all())]
            assert seen == [behind_both_walls(tenant), OUTSIDE_OF_BOTH], (before, after)
    await database.close()


async def test_a_role_does_not_outlast_what_it_was_entered_for(database: Database) -> None:
    async with database._connection() as connection:
        wall = await find_wall(connection)
        assert wall is not None
        for role in (wall.role, None, wall.role):
            async with connection.behind(Entry(OURS, role, None)):
                found = await connection.execute(WHO)
            assert await found.fetchone() == (role is None, role is not None, OURS)


async def test_an_error_in_a_transaction_undoes_it_and_reaches_the_caller(filled: Filled) -> None:
    before = await filled.look()
    for error in (Rollback(), ValueError("of the caller")):
        with contextlib.suppress(ValueError):
            async with filled.database.for_tenant(FOREIGN).transaction() as connection:
                assert (await connection.execute("DELETE FROM webhook_deliveries")).rowcount
                raise error
    assert await filled.look() == before
