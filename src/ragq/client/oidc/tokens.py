"""Verify the tokens of an OpenID provider: ID tokens as OpenID Connect Core 3.1.3.7 says, access tokens after RFC 9068."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Any

import jwt

from ragq.errors import AuthenticationError

# Signatures by a private key. None of them is an HMAC, whose secret could be taken from what is public.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_SECONDS = 30.0  # by which the provider's clock may differ
LONGEST_AGE_SECONDS = 600.0  # of a token that was just asked for
REQUIRED = ["iss", "sub", "aud", "exp", "iat"]

Claims = dict[str, Any]


class UnknownKeyError(AuthenticationError):
    """No key of the provider has made a token's signature; it may have new ones."""


def verify(token: str, keys: Sequence[dict[str, Any]], *, issuer: str, audience: str) -> Claims:
    """Verify what ID tokens and access tokens have in common; returns the claims.

    Args:
        keys: The provider's, as JSON Web Keys.
        audience: Who the token must be for.

    Raises:
        UnknownKeyError: It may be signed with a new key.
        AuthenticationError: It is not for us, has expired, or its signature is wrong.
    """
    try:
        header = jwt.get_unverified_header(token)
        claims: Claims = jwt.decode(
            token,
            _find_key(header, keys),
            algorithms=ALGORITHMS,
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY_SECONDS,
            options={"require": REQUIRED, "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError as error:
        raise _refused(f"{error}.") from error
    if not claims["sub"]:
        raise _refused("It names nobody (sub).")
    return claims


def check_id_token(claims: Claims, *, client_id: str, nonce: str) -> None:
    """Check what only an ID token has.

    Args:
        nonce: What the request for this token had.

    Raises:
        AuthenticationError: It is for another client or another request, or was made long ago.
    """
    audience = claims["aud"]
    is_shared = isinstance(audience, list) and len(audience) > 1
    if claims.get("azp", None if is_shared else client_id) != client_id:
        raise _refused("It was made for another client (azp).")
    if int(claims["iat"]) < time.time() - LONGEST_AGE_SECONDS - LEEWAY_SECONDS:
        raise _refused("It was made long ago (iat).")
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(errors="replace"), nonce.encode()):
        raise _refused("Its nonce is that of another request.")


def check_access_token(claims: Claims) -> None:
    """Check that a token is not an ID token, which tells a client who someone is and opens nothing.

    Raises:
        AuthenticationError: It is one.
    """
    if "nonce" in claims or "at_hash" in claims:
        raise _refused("It is an ID token: send an access token.")


def _find_key(header: dict[str, Any], keys: Sequence[dict[str, Any]]) -> jwt.PyJWK:
    """Find the key that a token's header names; without a name it must be the only one that fits.

    Raises:
        AuthenticationError: The algorithm is not allowed.
        UnknownKeyError: There is no such key.
    """
    algorithm, name = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise _refused(f"The algorithm {str(algorithm)[:20]!r} is not allowed.")
    fitting = [
        key
        for key in keys
        if key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm and name in (None, key.get("kid"))
    ]
    found = []
    for key in fitting:
        try:
            found.append(jwt.PyJWK(key, algorithm))
        except jwt.PyJWTError:  # of another kind
            continue
    if len(found) != 1:
        raise UnknownKeyError("The OpenID provider has no key for this token's signature.", code="token_invalid")
    return found[0]


def _refused(reason: str) -> AuthenticationError:
    return AuthenticationError(f"The OpenID provider's token is not valid. {reason}", code="token_invalid")
