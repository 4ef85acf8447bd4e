"""What `ragq migrate` and `ragq doctor` say of a database that cannot hold the schema."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import conninfo
from pydantic import SecretStr

from ragq.doctor import examine
from ragq.errors import ConfigurationError, UnavailableError
from ragq.prepare import migrate, wait_for_database
from ragq.settings import Settings
from ragq.storage.database import Database, find_pending

NUMBERS = itertools.count()
ROLE = "little"
MakeDatabase = Callable[[str], str]


@pytest.fixture
def make_database(database_url: str) -> Iterator[MakeDatabase]:
    """Create databases that are dropped after the test; returns their URLs."""
    made: list[str] = []
    with psycopg.connect(database_url, autocommit=True) as admin:

        def make(encoding: str) -> str:
            name = f"checked_{next(NUMBERS)}"
            admin.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' "
                "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
            )
            made.append(name)
            return conninfo.make_conninfo(database_url, dbname=name)

        admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'little'")
        yield make
        for name in made:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.execute(f"DROP ROLE IF EXISTS {ROLE}, {ROLE}_tenant")


def as_little(url: str) -> str:
    return conninfo.make_conninfo(url, user=ROLE, password="little")


def allow(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement)


def using(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(url)})


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_another_encoding_is_refused_with_the_sql_for_a_new_database(
    make_database: MakeDatabase, settings: Settings, encoding: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"is {encoding}, and ragq needs UTF8.*CREATE DATABASE ragq TEMPLATE"):
        await migrate(using(settings, make_database(encoding)))


async def test_a_role_that_may_not_create_the_extension_is_told_what_to_run(
    make_database: MakeDatabase, settings: Settings
) -> None:
    url = make_database("UTF8")
    allow(url, f"GRANT CREATE ON SCHEMA public TO {ROLE}")
    with pytest.raises(ConfigurationError, match="run CREATE EXTENSION vector; in the database checked_"):
        await migrate(using(settings, as_little(url)))


async def test_a_role_that_may_not_create_tables_is_told_what_to_run(
    make_database: MakeDatabase, settings: Settings
) -> None:
    url = make_database("UTF8")
    allow(url, "CREATE EXTENSION vector")
    with pytest.raises(ConfigurationError, match=f"run GRANT CREATE ON SCHEMA public TO {ROLE};"):
        await migrate(using(settings, as_little(url)))


async def test_a_role_needs_no_right_to_an_extension_that_is_there(
    make_database: MakeDatabase, settings: Settings
) -> None:
    url = make_database("UTF8")
    allow(url, "CREATE EXTENSION vector", f"GRANT CREATE ON SCHEMA public TO {ROLE}")
    await migrate(using(settings, as_little(url)))
    async with await psycopg.AsyncConnection.connect(as_little(url)) as connection:
        assert await find_pending(connection) == []


async def test_a_role_that_only_reads_and_writes_serves_a_database_that_is_migrated(
    make_database: MakeDatabase, settings: Settings
) -> None:
    url = make_database("UTF8")
    await migrate(using(settings, url))
    allow(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}")
    await migrate(using(settings, as_little(url)))
    allow(url, "INSERT INTO migrations VALUES ('9999_of_a_newer_version.sql')")
    database = await Database.open(settings, as_little(url), connections=1)
    await database.check_ready()
    await database.check_suitable()
    allow(url, "DELETE FROM migrations WHERE name LIKE '0010%'")
    with pytest.raises(UnavailableError, match=r"0010_ingests\.sql.*ragq migrate"):
        await database.check_ready()
    await database.close()


async def test_a_worker_begins_when_the_migrations_have_run(make_database: MakeDatabase, settings: Settings) -> None:
    url = make_database("UTF8")
    await migrate(using(settings, url))
    allow(url, "DELETE FROM migrations WHERE name LIKE '0026%'")
    waiting = asyncio.create_task(wait_for_database(using(settings, url)))
    assert await asyncio.wait({waiting}, timeout=1.5) == (set(), {waiting})
    allow(url, "INSERT INTO migrations VALUES ('0026_feedback.sql')")
    await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("schema", ["public", ROLE])
async def test_the_wall_between_tenants_is_raised_by_the_sql_that_is_named(
    make_database: MakeDatabase, settings: Settings, schema: str
) -> None:
    url = make_database("UTF8")
    allow(
        url,
        "CREATE EXTENSION vector",
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"ALTER SCHEMA {schema} OWNER TO {ROLE}",
    )
    await migrate(using(settings, as_little(url)))
    who = "SELECT current_user AS role, count(*) AS found FROM tenants"
    for role, says in ((ROLE, "As an administrator"), (f"{ROLE}_tenant", None)):
        database = await Database.open(settings, as_little(url), connections=1)
        problem = await database.check_wall()
        assert await database.for_tenant("nobody").row(who) == {"role": role, "found": 1 if problem else 0}
        assert await database.for_all().row(who) == {"role": ROLE, "found": 1}
        await database.close()
        assert bool(problem) == bool(says)
        if problem:
            (advice,) = re.findall(r"run (CREATE ROLE.+;) Then run `ragq migrate`", problem)
            allow(url, advice)
            await migrate(using(settings, as_little(url)))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (f"ALTER ROLE {ROLE}_tenant BYPASSRLS", "bypasses policies"),
        (f"REVOKE DELETE ON files FROM {ROLE}_tenant", "run `ragq migrate`"),
        ("DROP POLICY of_tenant ON responses", "run `ragq migrate`"),
        ("DROP POLICY tenant_reads ON files", "run `ragq migrate`"),
        (f"REVOKE EXECUTE ON FUNCTION shared_stores FROM PUBLIC, {ROLE}_tenant", "run `ragq migrate`"),
        ("ALTER TABLE chunks DISABLE ROW LEVEL SECURITY", "run `ragq migrate`"),
        (f"REVOKE {ROLE}_tenant FROM {ROLE} CASCADE", f'GRANT "{ROLE}_tenant" TO "{ROLE}"'),
    ],
)
async def test_a_wall_with_a_gap_is_down(
    make_database: MakeDatabase, settings: Settings, statement: str, said: str
) -> None:
    url = make_database("UTF8")
    allow(url, "CREATE EXTENSION vector", f"GRANT ALL ON SCHEMA public TO {ROLE}", f"ALTER ROLE {ROLE} CREATEROLE")
    await migrate(using(settings, as_little(url)))
    database = await Database.open(settings, as_little(url), connections=1)
    try:
        assert await database.check_wall() is None
        allow(url, statement)
        assert said in (await database.check_wall() or "")
    finally:
        await database.close()


async def test_a_user_that_always_has_the_role_is_refused(make_database: MakeDatabase, settings: Settings) -> None:
    url = make_database("UTF8")
    await migrate(using(settings, url))
    allow(
        url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}", f"GRANT ragq_tenant TO {ROLE} WITH INHERIT TRUE"
    )
    with pytest.raises(ConfigurationError, match="WITH INHERIT FALSE, SET TRUE;"):
        await migrate(using(settings, as_little(url)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"user": "nobody_here"}, "nobody_here"),
    ],
)
async def test_what_is_wrong_with_the_address_is_named(
    make_database: MakeDatabase, settings: Settings, wrong: dict[str, str], said: str
) -> None:
    url = conninfo.make_conninfo(as_little(make_database("UTF8")), **wrong)
    with pytest.raises(UnavailableError) as caught:
        await migrate(using(settings, url))
    assert said in str(caught.value)
    database = await Database.open(settings, url, connections=1)
    with pytest.raises(UnavailableError) as caught:
        await database.check_ready()
    await database.close()
    assert said in str(caught.value)


async def test_the_doctor_says_the_same(make_database: MakeDatabase, settings: Settings) -> None:
    url = make_database("SQL_ASCII")
    nowhere = {"valkey_url": SecretStr("redis://127.0.0.1:1")}
    found = {one.check: one for one in await examine(using(settings, url).model_copy(update=nowhere))}
    assert not found["postgresql"].ok
    assert "is SQL_ASCII, and ragq needs UTF8" in found["postgresql"].message
