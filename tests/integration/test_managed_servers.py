"""Servers that others run: TLS, users with few rights, and a Valkey that forbids CONFIG."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import psycopg
import pytest

from ragq.client.rq_client import JobQueue
from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings
from ragq.storage.database import Database
from tests.pooler import PgBouncer
from tests.servers import Ragq, Valkey, wait_until
from tests.tls import Certificate, TlsProxy, make_certificate

PASSWORD = "p@ss/w:rd ?#%"
PAGE = Path(__file__).parents[2] / "docs/how-to/use-a-managed-valkey.md"
(RIGHTS,) = re.findall(r"^ACL SETUSER ragq on >PASSWORD (.+)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey with a user as managed services give one: it may neither CONFIG nor anything else of an administrator."""
    server = Valkey(tmp_path_factory.mktemp("m")).start()
    with server.connect() as connection:
        connection.execute_command("ACL", "SETUSER", "ragq", "on", f">{PASSWORD}", *RIGHTS.split())
    yield server
    server.stop()


def url_of(valkey: Valkey) -> str:
    return f"unix://ragq:{quote(PASSWORD, safe='')}@{valkey.folder}/valkey.sock"


@asynccontextmanager
async def queue_at(url: str, **changed: object) -> AsyncIterator[JobQueue]:
    queue = JobQueue(Settings(_env_file=None, **changed), url)  # type: ignore[arg-type]
    try:
        yield queue
    finally:
        await queue.close()


async def test_a_valkey_that_forbids_config_is_taken_when_the_operator_vouches(managed: Valkey) -> None:
    async with queue_at(url_of(managed)) as queue:
        with pytest.raises(ConfigurationError, match="RAGQ_VALKEY_DURABILITY=vouched"):
            await queue.check_server()
    async with queue_at(url_of(managed), valkey_durability="vouched") as queue:
        await queue.check_server()


async def test_what_info_tells_is_refused_though_the_operator_vouches(managed: Valkey) -> None:
    with managed.connect() as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with queue_at(url_of(managed), valkey_durability="vouched") as queue:
                with pytest.raises(ConfigurationError, match="maxmemory-policy is allkeys-lru"):
                    await queue.check_server()
        finally:
            connection.config_set("maxmemory-policy", "noeviction")


async def test_a_valkey_without_append_only_file_that_forbids_config_says_so(managed: Valkey) -> None:
    with managed.connect() as connection:
        connection.config_set("appendonly", "no")
        try:
            async with queue_at(url_of(managed)) as queue:
                with pytest.raises(ConfigurationError, match="aof_enabled:0"):
                    await queue.check_server()
        finally:
            connection.config_set("appendonly", "yes")


@pytest.mark.parametrize("durability", ["checked", "vouched"])
async def test_a_missing_password_is_said_to_be_missing(tmp_path: Path, durability: str) -> None:
    server = Valkey(tmp_path).start()
    try:
        with server.connect() as connection:
            connection.config_set("requirepass", PASSWORD)
            async with queue_at(server.url, valkey_durability=durability) as queue:
                with pytest.raises(ConfigurationError, match="Put user and password into RAGQ_VALKEY_URL"):
                    await queue.check_server()
            connection.config_set("requirepass", "")
    finally:
        server.stop()


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    replica = Valkey(tmp_path).start()
    try:
        with replica.connect() as connection:
            connection.replicaof("127.0.0.1", "1")
        async with queue_at(replica.url) as queue:
            with pytest.raises(ConfigurationError, match="primary"):
                await queue.check_server()
    finally:
        replica.stop()


async def test_valkey_is_reached_by_tls_with_a_private_authority(managed: Valkey, certificate: Certificate) -> None:
    with TlsProxy(managed.folder / "valkey.sock", certificate) as proxy:
        user = f"ragq:{quote(PASSWORD, safe='')}"
        good = f"rediss://{user}@localhost:{proxy.port}/0?ssl_ca_certs={certificate.file}"
        async with queue_at(good, valkey_durability="vouched") as queue:
            await queue.check_server()
        bad = {
            f"rediss://{user}@localhost:{proxy.port}/0": "certificate verify failed",
            f"rediss://{user}@127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate.file}": "certificate verify failed",
            f"redis://{user}@localhost:{proxy.port}/0": "",
            good.replace("p%40ss", "wrong"): "WRONGPASS",
        }
        for url, reason in bad.items():
            async with queue_at(url) as queue:
                with pytest.raises(UnavailableError) as caught:
                    await queue.check_server()
                assert reason in str(caught.value)
                assert PASSWORD not in str(caught.value)


@pytest.mark.timeout(120)
def test_a_whole_service_works_with_such_a_valkey_over_tls(
    managed: Valkey, certificate: Certificate, tmp_path: Path
) -> None:
    with TlsProxy(managed.folder / "valkey.sock", certificate) as proxy:
        url = f"rediss://ragq:{quote(PASSWORD, safe='')}@localhost:{proxy.port}/0?ssl_ca_certs={quote(str(certificate.file))}"
        ragq = Ragq(tmp_path / "data", RAGQ_VALKEY_URL=url, RAGQ_VALKEY_DURABILITY="vouched").start()
        try:
            (tmp_path / "note.txt").write_text("The lighthouse of Brightsea was built in 1873.\n")
            done = ragq.run("ingest", str(tmp_path / "note.txt"), RAGQ_VALKEY_DURABILITY="vouched")
            assert done.returncode == 0, done.stdout + done.stderr
            job_id = httpx2.post(f"{ragq.url}/chat", params={"query": "When was the lighthouse built?"}).json()[
                "job_id"
            ]

            def answer() -> str:
                job = httpx2.get(f"{ragq.url}/job-status", params={"job_id": job_id}).json()
                return str((job["result"] or {}).get("answer", ""))

            assert "1873" in wait_until(answer, seconds=30)
            assert "NOPERM" not in ragq.log()
        finally:
            ragq.stop()


@pytest.mark.parametrize(
    ("host", "mode", "reason"),
    [
        ("localhost", "require", ""),
        ("localhost", "verify-full", ""),
        ("127.0.0.1", "verify-full", "does not match host name"),
        ("localhost", "other-authority", "certificate verify failed"),
    ],
)
async def test_postgresql_is_reached_by_tls(
    database_url: str, settings: Settings, certificate: Certificate, tmp_path: Path, host: str, mode: str, reason: str
) -> None:
    other = make_certificate(tmp_path, "other.test")
    with PgBouncer(database_url, certificate=certificate, ignore_startup_parameters="options") as server:
        root = other.file if mode == "other-authority" else certificate.file
        sslmode = "verify-full" if mode == "other-authority" else mode
        url = server.url.replace("127.0.0.1", host) + f"?sslmode={sslmode}&sslrootcert={root}"
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url + "?sslmode=disable", connect_timeout=3)
        database = await Database.open(settings, url, connections=1)
        try:
            if reason:
                with pytest.raises(UnavailableError, match=reason) as caught:
                    await database.for_all().row("SELECT 1")
                assert "scram" not in str(caught.value).lower()
            else:
                assert await database.for_all().row("SELECT 1 AS one") == {"one": 1}
        finally:
            await database.close()
