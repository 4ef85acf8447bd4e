"""Access tokens of the OpenID provider, which programs send in the place of a key for the person who runs them."""

from __future__ import annotations

import re

from ragq.errors import ForbiddenError
from ragq.http.sign_in import SignIn
from ragq.storage.tenancy.sessions import OpenedSession
from ragq.storage.tenancy.tenants import Tenants

TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)  # three parts, the first of which is a JSON object
LONGEST_TOKEN = 16_384  # characters


def is_token(text: str) -> bool:
    """Whether a key has the form of a token (RFC 7519)."""
    return len(text) <= LONGEST_TOKEN and bool(TOKEN.fullmatch(text))


class AccessTokens:
    """Finds what access tokens open.

    Args:
        audience: Who they must be for.
    """

    def __init__(self, sign_in: SignIn, audience: str, tenants: Tenants) -> None:
        self._sign_in = sign_in
        self._audience = audience
        self._tenants = tenants

    async def open(self, token: str) -> OpenedSession:
        """Verify a token; returns what it opens.

        Raises:
            AuthenticationError: It is not valid.
            ForbiddenError: The person has no role, or the tenant is not there.
            UnavailableError: PostgreSQL or the provider does not answer.
        """
        person, tenant_id, role = await self._sign_in.read_token(token, audience=self._audience)
        tenant = await self._tenants.open(tenant_id)
        if tenant is None:
            raise ForbiddenError(f"The tenant '{tenant_id}' is not there.", code="no_tenant")
        return OpenedSession(
            id="",
            tenant_id=tenant_id,
            role=role,
            issuer=person.issuer,
            subject=person.subject,
            name=person.name,
            groups=person.groups,
            is_suspended=tenant.is_suspended,
            limits=tenant.limits,
            has_readers=tenant.has_readers,
            has_shares=tenant.has_shares,
        )
