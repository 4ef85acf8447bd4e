"""Sign people in by OpenID Connect: the authorization code flow, with PKCE, state and nonce.

One random secret in a cookie stands for a sign-in that has begun. State, nonce and PKCE's verifier are derived from it, so that
only the browser that began can end it, and no process has to remember anything.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ragq.accounts.roles import Role
from ragq.client.oidc.address import add_query
from ragq.errors import AuthenticationError, ForbiddenError
from ragq.http.groups import choose_role, clean, find_groups, read_rules
from ragq.settings import Settings
from ragq.storage.tenancy.sessions import LONGEST_NAME, Person

if TYPE_CHECKING:
    from ragq.client.oidc.provider import Provider

CALLBACK = "/session/callback"
NAMES = ("name", "preferred_username", "email", "sub")  # claims, the first of which names a person


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Someone who has just signed in, and what that allows.

    Attributes:
        id_token: Tells the provider who signs out.
    """

    person: Person
    tenant: str
    role: Role
    expires_at: datetime
    id_token: str


class SignIn:
    """Signs people in at the provider that the settings name.

    Attributes:
        url: Where a sign-in begins.
        home: The page, to which it leads back.
        folder: Path of the cookies that only signing in and out needs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        self._provider: Provider | None = None
        self.url = f"{settings.page_url}/session/sign-in"
        self.home = f"{settings.page_url}/"
        self.folder = f"{urlsplit(settings.page_url).path}/session"
        self._redirect_uri = settings.page_url + CALLBACK
        self._rules = read_rules(settings.oidc_roles)

    async def _open(self) -> Provider:
        if self._provider is None:
            module = await asyncio.to_thread(importlib.import_module, "ragq.client.oidc.provider")
            self._provider = self._provider or module.Provider(self._settings)
        assert self._provider
        return self._provider

    async def close(self) -> None:
        """Close the connections to the provider."""
        if self._provider:
            await self._provider.close()

    async def begin(self) -> tuple[str, str]:
        """Begin a sign-in; returns the provider's address for it, and the secret to keep in the browser.

        Raises:
            UnavailableError: The provider does not answer.
        """
        described, secret = await (await self._open()).describe(), secrets.token_urlsafe(32)
        challenge = hashlib.sha256(_derive(secret, "verifier").encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._settings.oidc_scopes,
            "state": _derive(secret, "state"),
            "nonce": _derive(secret, "nonce"),
            "code_challenge": _encode(challenge),
            "code_challenge_method": "S256",
        }
        return add_query(described.authorization_endpoint, query), secret

    async def complete(self, query: Mapping[str, str], secret: str) -> SignedIn:
        """Complete a sign-in with what the provider sends the browser back with.

        Args:
            secret: Empty if the browser has none.

        Raises:
            AuthenticationError: This browser did not begin it, it was completed before, or the provider refuses it.
            ForbiddenError: None of the person's groups has a role.
            UnavailableError: The provider does not answer.
        """
        if not secret or not hmac.compare_digest(query.get("state", "").encode(), _derive(secret, "state").encode()):
            raise AuthenticationError(
                "This sign-in has ended, or began elsewhere. Begin again.", code="sign_in_expired"
            )
        provider = await self._open()
        described = await provider.describe()
        self._check_issuer(query.get("iss"), is_always_said=described.authorization_response_iss_parameter_supported)
        if "code" not in query:
            reason = f"{query.get('error', '')[:100]!r}: {query.get('error_description', '')[:300]!r}"
            raise AuthenticationError("The provider did not sign you in.", code="sign_in_refused", detail=reason)
        verifier = _derive(secret, "verifier")
        id_token = await provider.exchange(query["code"], verifier=verifier, redirect_uri=self._redirect_uri)
        claims = await provider.verify_id_token(id_token, nonce=_derive(secret, "nonce"))
        return SignedIn(*self._read(claims), self._find_end(claims.get("session_expiry")), id_token)

    async def read_token(self, token: str, *, audience: str) -> tuple[Person, str, Role]:
        """Verify an access token; returns whose it is, with the tenant and the role in it.

        Raises:
            AuthenticationError: It is not valid, or not for this audience.
            ForbiddenError: None of the person's groups has a role.
            UnavailableError: The provider does not answer.
        """
        provider = await self._open()
        return self._read(await provider.verify_access_token(token, audience=audience))

    def _read(self, claims: Mapping[str, Any]) -> tuple[Person, str, Role]:
        groups, subject = find_groups(claims, self._settings.oidc_groups_claim), claims["sub"]
        if clean(subject) != subject:
            raise AuthenticationError(
                "The OpenID provider's token is not valid. Its subject (sub) is no text.", code="token_invalid"
            )
        found = choose_role(self._rules, groups)
        if found is None:
            reason = f"{self._settings.oidc_groups_claim} of {subject!r}: {groups[:50]}"
            raise ForbiddenError("None of your groups has a role here.", code="no_role", detail=reason)
        name = next(str(claims[claim]) for claim in NAMES if claims.get(claim))
        return Person(self._issuer, subject, clean(name)[:LONGEST_NAME], tuple(groups)), *found

    def _check_issuer(self, issuer: str | None, *, is_always_said: bool) -> None:
        """Check who has answered, so that no other provider's code is brought to ours (RFC 9207).

        Raises:
            AuthenticationError: Another one, or it does not say although it always does.
        """
        if issuer != self._issuer and (issuer is not None or is_always_said):
            raise AuthenticationError(
                "Another provider has answered. Begin again.", code="sign_in_refused", detail=f"iss {issuer!r}"
            )

    def _find_end(self, session_expiry: object) -> datetime:
        """When a session ends: after the setting's time, or when the provider says, as IPSIE's profile has it."""
        end = time.time() + self._settings.oidc_session_seconds
        if isinstance(session_expiry, int):
            end = min(end, max(session_expiry, 0))
        return datetime.fromtimestamp(end, UTC)

    async def find_sign_out(self, id_token: str | None) -> str | None:
        """The address at which a browser signs out of the provider, too; None if it has none.

        Raises:
            UnavailableError: The provider does not answer.
        """
        described = await (await self._open()).describe()
        if described.end_session_endpoint is None:
            return None
        query = {"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": self.home}
        hint = {"id_token_hint": id_token} if id_token else {}
        return add_query(described.end_session_endpoint, query | hint)


def _derive(secret: str, purpose: str) -> str:
    """Make 256 bits for one purpose, which tell nothing of the secret or of those for another."""
    return _encode(hmac.digest(secret.encode(), purpose.encode(), "sha256"))


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
