"""Check that a Valkey keeps accepted jobs, by its configuration or, where a service forbids CONFIG, by INFO; and that it is whole."""

from __future__ import annotations

from typing import Literal

from redis import exceptions

from ragq.client.valkey_client import REFUSALS, ValkeyClient, pairs
from ragq.errors import ConfigurationError

WANTED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
RESTORING = "restoring"  # a key that is there while a restore is unfinished
VOUCH = (
    "Find out whether it keeps every acknowledged write, as with appendonly yes and appendfsync always, and set "
    "RAGQ_VALKEY_DURABILITY=vouched if so."
)


async def check_restored(valkey: ValkeyClient, prefix: str) -> None:
    """Refuse a queue that a restore has not completed.

    Raises:
        ConfigurationError: A restore runs, or was interrupted.
    """
    if await valkey.call("EXISTS", f"{prefix}:{RESTORING}"):
        raise ConfigurationError(
            "A restore of this system is not complete. Wait until `ragq restore` has ended; if it was interrupted, run it again."
        )


async def check_valkey(valkey: ValkeyClient, durability: Literal["checked", "vouched"]) -> None:
    """Refuse a server that could lose or evict accepted jobs.

    Raises:
        ConfigurationError: The message says what is wrong and how to fix it.
    """
    info = await _read_info(valkey)
    if info.get("cluster_enabled") == "1":
        raise ConfigurationError(
            "RAGQ_VALKEY_URL names a cluster. ragq needs one node: turn cluster mode off, or use another server."
        )
    if info.get("role") == "slave":
        raise ConfigurationError("RAGQ_VALKEY_URL names a replica, which refuses writes. Use its primary.")
    if durability == "vouched":
        _refuse_wrong({"maxmemory-policy": info.get("maxmemory_policy", WANTED["maxmemory-policy"])})
        return
    try:
        found = pairs([part.decode() for part in await valkey.call("CONFIG", "GET", *WANTED)])
    except exceptions.ResponseError as error:
        _raise_unless_forbidden(error)
        if info.get("aof_enabled") == "0":
            raise ConfigurationError(
                "Valkey forbids CONFIG, and INFO says that it writes no append-only file (aof_enabled:0): accepted jobs are "
                f"lost when it restarts, unless the service keeps them in another way. {VOUCH}"
            ) from error
        raise ConfigurationError(f"Valkey forbids CONFIG, so ragq cannot see when it writes. {VOUCH}") from error
    _refuse_wrong({name: found.get(name, "unknown") for name in WANTED})


async def _read_info(valkey: ValkeyClient) -> dict[str, str]:
    """Read INFO; empty if that is forbidden, too."""
    try:
        text: bytes = await valkey.call("INFO")
    except exceptions.ResponseError as error:
        _raise_unless_forbidden(error)
        return {}
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}


def _raise_unless_forbidden(error: exceptions.ResponseError) -> None:
    """Do nothing if a command is forbidden, else raise the error.

    Raises:
        ConfigurationError: User or password are not accepted.
        ResponseError: The server is busy or loading.
    """
    if str(error).startswith(("NOAUTH", "WRONGPASS", "Authentication required")):
        raise ConfigurationError(
            "Valkey needs a password or refuses this one. Put user and password into RAGQ_VALKEY_URL, as in "
            "redis://USER:PASSWORD@HOST:6379/0.",
            detail=error,
        ) from error
    if str(error).startswith(REFUSALS):
        raise error


def _refuse_wrong(found: dict[str, str]) -> None:
    wrong = [f"{name} is {value}, not {WANTED[name]}" for name, value in found.items() if value != WANTED[name]]
    if wrong:
        raise ConfigurationError(
            f"Valkey could lose accepted jobs: {'; '.join(wrong)}. Change it (CONFIG SET, its configuration file, or the "
            "parameters of the service), or set RAGQ_ALLOW_UNSAFE_VALKEY=true to accept the loss."
        )
