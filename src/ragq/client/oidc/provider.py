"""An OpenID provider: its description, its keys, and the exchange of a code for an ID token.

Imported at the first sign-in: the API needs an HTTP client and PyJWT for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote_plus
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from ragq.client.connection_errors import describe
from ragq.client.oidc import tokens
from ragq.client.oidc.address import check_address
from ragq.errors import AuthenticationError, ConfigurationError, UnavailableError
from ragq.settings import Settings

T = TypeVar("T")

WELL_KNOWN = "/.well-known/openid-configuration"
CALL_SECONDS = 10.0  # time limit of one call
MOST_BYTES = 1 << 20  # of an answer
KNOWN_SECONDS = 3600.0  # how long the description and the keys are used without asking again
KEYS_REST_SECONDS = 10.0  # the keys are asked for no more often because of tokens that strangers send
AWAY_SECONDS = 1.0  # after a failure it is not asked again, so that those who wait do not wait in turns
AWAY = "The sign-in service does not answer. Try again later, or use an API key."


class Description(msgspec.Struct, frozen=True):
    """What a provider tells of itself (OpenID Connect Discovery)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False

    def check(self, issuer: str) -> None:
        """Check that this describes the provider that was asked.

        Raises:
            UnavailableError: It describes another one, or names an address without TLS.
        """
        if self.issuer != issuer:
            raise _away(f"it calls itself {self.issuer!r}, and RAGQ_OIDC_ISSUER is {issuer!r}")
        ends = (self.authorization_endpoint, self.token_endpoint, self.jwks_uri, self.end_session_endpoint or issuer)
        try:
            for address in ends:
                check_address(address)
        except ConfigurationError as error:
            raise _away(error.message) from error


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Provider:
    """The provider that the settings name. It is called when someone signs in, and by no request else.

    Proxies come from the environment; no redirect is followed.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer, self.client_id = settings.oidc_issuer or "", settings.oidc_client_id
        self._secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
        self._clock = clock
        self._lock = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._description: tuple[Description, float] | None = None
        self._keys: tuple[list[dict[str, Any]], float] | None = None
        self._failure, self._failed_at = "", -AWAY_SECONDS

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    async def describe(self) -> Description:
        """The provider's description.

        Raises:
            UnavailableError: It does not answer, or describes another one.
        """
        async with self._lock:
            if self._description is None or self._clock() - self._description[1] > KNOWN_SECONDS:
                with self._rest_after_failure():
                    found = await self._call("GET", self.issuer.rstrip("/") + WELL_KNOWN, Description)
                    found.check(self.issuer)
                self._description = found, self._clock()
            return self._description[0]

    @contextlib.contextmanager
    def _rest_after_failure(self) -> Iterator[None]:
        """Remember a failure to ask for what is kept; raises it again for AWAY_SECONDS."""
        if self._clock() - self._failed_at < AWAY_SECONDS:
            raise _away(self._failure)
        try:
            yield
        except UnavailableError as error:
            self._failure, self._failed_at = error.detail, self._clock()
            raise

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> str:
        """Exchange a code for an ID token, which is not verified yet.

        Raises:
            AuthenticationError: The provider refuses the code: it was used, has expired, or is someone else's.
            UnavailableError: It does not answer.
        """
        described = await self.describe()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        methods = described.token_endpoint_auth_methods_supported
        if self._secret and ("client_secret_basic" in methods or "client_secret_post" not in methods):
            headers["Authorization"] = aiohttp.encode_basic_auth(quote_plus(self.client_id), quote_plus(self._secret))
        else:
            form |= {"client_id": self.client_id} | ({"client_secret": self._secret} if self._secret else {})
        answer = await self._call("POST", described.token_endpoint, _Tokens, data=form, headers=headers)
        return answer.id_token

    async def verify_id_token(self, token: str, *, nonce: str) -> tokens.Claims:
        """Verify an ID token that was just asked for; returns its claims.

        Raises:
            AuthenticationError: It is not valid.
            UnavailableError: The provider does not tell its keys.
        """
        claims = await self._verify(token, self.client_id, keys_rest_seconds=0)
        tokens.check_id_token(claims, client_id=self.client_id, nonce=nonce)
        return claims

    async def verify_access_token(self, token: str, *, audience: str) -> tokens.Claims:
        """Verify a token that anyone may have sent; returns its claims. Raises as `verify_id_token`."""
        claims = await self._verify(token, audience, keys_rest_seconds=KEYS_REST_SECONDS)
        tokens.check_access_token(claims)
        return claims

    async def _verify(self, token: str, audience: str, *, keys_rest_seconds: float) -> tokens.Claims:
        """Verify a token; a key that is not known is looked for again, as it may be new."""
        try:
            keys = await self._find_keys(KNOWN_SECONDS)
            return tokens.verify(token, keys, issuer=self.issuer, audience=audience)
        except tokens.UnknownKeyError:
            keys = await self._find_keys(keys_rest_seconds)
            return tokens.verify(token, keys, issuer=self.issuer, audience=audience)

    async def _find_keys(self, most_seconds: float) -> list[dict[str, Any]]:
        """The provider's keys, as they were at most so long ago."""
        url = (await self.describe()).jwks_uri
        async with self._lock:
            if self._keys is None or self._clock() - self._keys[1] > most_seconds:
                with self._rest_after_failure():
                    self._keys = (await self._call("GET", url, _Keys)).keys, self._clock()
            return self._keys[0]

    async def _call(self, method: str, url: str, answer: type[T], **options: Any) -> T:
        try:
            async with self._open().request(method, url, allow_redirects=False, **options) as response:
                body = await _read(response)
                if method == "POST" and response.status in (400, 401):
                    raise _refused(response.status, body)
                if response.status != 200:
                    raise _away(f"{method} {url}: status {response.status}")
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _away(f"{method} {url}: {describe(error)}") from error
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.DecodeError as error:
            raise _away(f"{method} {url}: {error}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            url = URL(self.issuer)
            proxy = None if proxy_bypass(url.authority) else getproxies().get(url.scheme)
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json"},
                proxy=proxy,
            )
        return self._session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > MOST_BYTES:
            raise _away(f"{response.url.with_query(None)}: over {MOST_BYTES:,} bytes")
    return bytes(body)


def _away(reason: str) -> UnavailableError:
    return UnavailableError(AWAY, code="provider_unavailable", detail=reason, retry_after_seconds=5)


def _refused(status: int, body: bytes) -> AuthenticationError:
    return AuthenticationError(
        "The provider refused to sign you in. Try again.",
        code="sign_in_refused",
        detail=f"the token endpoint answered {status}: {body[:300].decode(errors='replace')}",
    )
