"""What `ragq migrate` and `ragq doctor` say of a database that cannot hold the schema."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import conninfo
from pydantic import SecretStr

from ragq.doctor import examine
from ragq.errors import ConfigurationError, UnavailableError
from ragq.prepare import migrate
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
        admin.execute(f"DROP ROLE {ROLE}")


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
