"""The client of an OpenID provider, at a small provider that runs as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragq.client.oidc.provider import AWAY_SECONDS, KEYS_REST_SECONDS, KNOWN_SECONDS, Provider
from ragq.errors import AuthenticationError, UnavailableError
from ragq.settings import Settings
from tests.clock import Clock
from tests.oidc_provider import CLIENT_SECRET, OidcProvider


@pytest.fixture
def server(running_provider: OidcProvider) -> OidcProvider:
    """The provider's process, which does nothing wrong yet."""
    running_provider.set()
    return running_provider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(server: OidcProvider, clock: Clock) -> AsyncIterator[Provider]:
    client = make_client(server, clock)
    yield client
    await client.close()


def make_client(server: OidcProvider, clock: Clock, *, secret: str = CLIENT_SECRET) -> Provider:
    return Provider(
        Settings(_env_file=None, oidc_issuer=server.issuer, oidc_client_id="ragq", oidc_client_secret=secret or None),
        clock,
    )


async def exchange(client: Provider) -> None:
    """Exchange a code that nobody has: whether the provider knows ragq is checked first."""
    await client.exchange("code", verifier="verifier", redirect_uri="https://ragq.example.com/session/callback")


@pytest.mark.parametrize(
    ("methods", "secret", "error"),
    [
        (["client_secret_basic"], CLIENT_SECRET, "invalid_grant"),
        (["client_secret_post"], CLIENT_SECRET, "invalid_grant"),
        (["none"], "", "invalid_grant"),
        (["client_secret_basic"], "wrong", "invalid_client"),
        (["client_secret_basic"], "", "invalid_client"),
    ],
)
async def test_ragq_proves_who_it_is_in_the_way_that_the_provider_takes(
    server: OidcProvider, clock: Clock, methods: list[str], secret: str, error: str
) -> None:
    server.set(methods=methods)
    client = make_client(server, clock, secret=secret)
    with pytest.raises(AuthenticationError) as refusal:
        await exchange(client)
    assert error in refusal.value.detail
    assert CLIENT_SECRET not in str(refusal.value)
    await client.close()


@pytest.mark.parametrize(
    "wrong", [{"calls_itself": "https://elsewhere.example"}, {"status": 500}, {"status": 302}, {"plain_http": True}]
)
async def test_a_description_that_is_not_the_providers_is_not_used(
    server: OidcProvider, client: Provider, clock: Clock, wrong: dict[str, Any]
) -> None:
    server.set(**wrong)
    with pytest.raises(UnavailableError) as refusal:
        await client.describe()
    assert refusal.value.code == "provider_unavailable"
    server.set()
    with pytest.raises(UnavailableError):  # it is not asked at once again
        await client.describe()
    clock.now += AWAY_SECONDS
    assert (await client.describe()).issuer == server.issuer


async def test_keys_that_the_provider_does_not_tell_are_not_asked_for_by_each_request(
    server: OidcProvider, client: Provider, clock: Clock
) -> None:
    server.set(keys_status=500)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await client.verify_access_token(server.issue(aud="ragq"), audience="ragq")
    assert len(server.seen("/jwks")) == 1
    clock.now += AWAY_SECONDS
    server.set()
    assert await client.verify_access_token(server.issue(aud="ragq"), audience="ragq")


async def test_the_description_is_used_for_an_hour(server: OidcProvider, client: Provider, clock: Clock) -> None:
    await client.describe()
    server.set(status=500)
    clock.now += KNOWN_SECONDS
    await client.describe()
    clock.now += 1
    with pytest.raises(UnavailableError):
        await client.describe()


async def test_strangers_tokens_make_ragq_ask_for_the_keys_once_in_a_while(
    server: OidcProvider, client: Provider, clock: Clock
) -> None:
    await client.verify_access_token(server.issue(aud="ragq"), audience="ragq")
    server.set(kid="unknown")
    for number in range(20):
        with pytest.raises(AuthenticationError):
            await client.verify_access_token(server.issue(aud="ragq", sub=f"u-{number}"), audience="ragq")
    assert server.seen("/jwks") == []
    clock.now += KEYS_REST_SECONDS + 1
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await client.verify_access_token(server.issue(aud="ragq"), audience="ragq")
    assert len(server.seen("/jwks")) == 1
    server.set()
    server.rotate()
    clock.now += KEYS_REST_SECONDS + 1
    assert (await client.verify_access_token(server.issue(aud="ragq"), audience="ragq"))["sub"] == "u-1"


async def test_a_withdrawn_key_counts_for_an_hour_at_most(server: OidcProvider, client: Provider, clock: Clock) -> None:
    old = server.issue(aud="ragq")
    await client.verify_access_token(old, audience="ragq")
    server.rotate()
    clock.now += KNOWN_SECONDS + 1
    with pytest.raises(AuthenticationError):
        await client.verify_access_token(old, audience="ragq")
