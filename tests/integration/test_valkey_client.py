"""The connection that all commands of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions

from ragq.client import valkey_client
from ragq.client.valkey_client import ValkeyClient
from tests.receiver import eventually
from tests.servers import Valkey


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[ValkeyClient]:
    with valkey.connect() as connection:
        connection.flushall()
    client = ValkeyClient(valkey.url)
    yield client
    await client.close()


async def test_answers_come_to_those_who_asked(client: ValkeyClient) -> None:
    asked = [client.call("ECHO", f"{number}") for number in range(500)]
    assert await asyncio.gather(*asked) == [b"%d" % number for number in range(500)]
    assert (await client.call("CLIENT", "LIST")).count(b"\n") == 1


async def test_who_leaves_takes_nobody_elses_answer(client: ValkeyClient) -> None:
    await client.call("PING")
    asked = [asyncio.create_task(client.call("ECHO", f"{number}")) for number in range(100)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    assert await asyncio.gather(*asked[1::2]) == [b"%d" % number for number in range(1, 100, 2)]


async def test_an_error_is_raised_or_stands_in_its_place(client: ValkeyClient) -> None:
    with pytest.raises(exceptions.ResponseError, match="unknown command"):
        await client.call("INVALID_OUTPUT")
    replies = await client.call_all([["SET", "text", "a"], ["LPUSH", "text", "b"], ["GET", "text"]])
    assert (replies[0], replies[2]) == (b"OK", b"a")
    assert isinstance(replies[1], exceptions.ResponseError)
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await client.transact([["GET", "text"], ["LPUSH", "text", "b"]])
    assert await client.transact([["GET", "text"], ["EXISTS", "other"]]) == [b"a", 0]


async def test_an_error_that_passes_is_raised_from_among_others(client: ValkeyClient, valkey: Valkey) -> None:
    with valkey.connect() as connection:
        connection.config_set("maxmemory", 1)
        try:
            with pytest.raises(exceptions.ResponseError, match="OOM"):
                await client.call_all([["GET", "a"], ["SET", "a", "b"]])
        finally:
            connection.config_set("maxmemory", 0)


async def test_a_lost_connection_fails_who_waits_and_is_made_again(client: ValkeyClient, valkey: Valkey) -> None:
    await client.call("PING")
    waiting = [asyncio.create_task(client.call("BLPOP", "nothing", 0)), asyncio.create_task(client.call("PING"))]
    await until_blocked(valkey)
    with valkey.connect() as connection:
        connection.client_kill_filter(_type="normal", skipme=True)
    for lost in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(lost, exceptions.ConnectionError)
    assert await client.call("PING") == b"PONG"


async def until_blocked(valkey: Valkey) -> None:
    """Wait until Valkey has a BLPOP that waits."""
    with valkey.connect() as connection:

        async def is_blocked() -> bool:
            return any(client["cmd"] == "blpop" for client in connection.client_list())

        await eventually(is_blocked)


async def test_a_connection_that_is_silent_is_left(
    client: ValkeyClient, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = asyncio.create_task(client.call("BLPOP", "nothing", 0))
    await until_blocked(valkey)
    monkeypatch.setattr(valkey_client, "ANSWER_SECONDS", 0)
    assert await client.call("PING") == b"PONG"
    with pytest.raises(exceptions.ConnectionError):
        await silent


async def test_it_logs_in_and_takes_the_urls_database(valkey: Valkey) -> None:
    with valkey.connect() as connection:
        connection.execute_command("ACL SETUSER", "worker", "on", ">p@ss", "~*", "+@all")
        good, bad = (
            ValkeyClient(valkey.url.replace("unix://", f"unix://worker:{p}@") + "?db=3") for p in ("p%40ss", "x")
        )
        try:
            await good.call("SET", "where", "three")
            assert connection.get("where") is None
            assert await good.call("ACL", "WHOAMI") == b"worker"
            with pytest.raises(exceptions.ConnectionError, match="WRONGPASS"):
                await bad.call("PING")
        finally:
            connection.acl_deluser("worker")
            await good.close()
            await bad.close()


async def test_what_is_no_answer_ends_the_connection() -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(chat, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        client = ValkeyClient(f"redis://{host}:{port}")
        with pytest.raises(exceptions.ConnectionError):
            await client.call("PING")
        await client.close()
