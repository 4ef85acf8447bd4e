"""What makes it safe to listen beyond this machine."""

from __future__ import annotations

import re

from ragq.client.oidc.address import check_address
from ragq.errors import ConfigurationError
from ragq.http.groups import read_rules
from ragq.settings import LEAST_KEY_CHARACTERS, Settings, is_loopback, split_list

HOW_TO_MAKE_A_KEY = (
    "Make one with `openssl rand -hex 32` or `python3 -c 'import secrets; print(secrets.token_hex(32))'`."
)
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")


def check_exposure(settings: Settings) -> None:
    """Refuse settings that would let strangers use the API.

    Raises:
        ConfigurationError: `RAGQ_HOST` is not a loopback address and `RAGQ_API_KEY` is not set or too short, or
            `RAGQ_CORS_ORIGINS` contains a value that is not an origin, or `RAGQ_OIDC_…` are not complete.
    """
    for origin in split_list(settings.cors_origins):
        if not ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"RAGQ_CORS_ORIGINS: '{origin}' is not an origin. Write each as browsers send it: scheme, host and "
                "port, such as https://app.example.com, in lower case and without a path."
            )
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise ConfigurationError(
            f"RAGQ_API_KEY has characters that a header cannot carry: use ASCII, without spaces around it. {HOW_TO_MAKE_A_KEY}"
        )
    if settings.oidc_issuer:
        _check_sign_in(settings)
    if is_loopback(settings.host):
        return
    if settings.api_key is None:
        raise ConfigurationError(
            f"Listening on {settings.host} would let anyone read the documents: set RAGQ_API_KEY, or listen on "
            f"127.0.0.1. {HOW_TO_MAKE_A_KEY}"
        )
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ConfigurationError(
            f"RAGQ_API_KEY is shorter than {LEAST_KEY_CHARACTERS} characters and can be guessed: to listen on "
            f"{settings.host}, use a longer one. {HOW_TO_MAKE_A_KEY}"
        )


def _check_sign_in(settings: Settings) -> None:
    if settings.api_key is None:
        raise ConfigurationError(
            "RAGQ_OIDC_ISSUER is set but RAGQ_API_KEY is not. It signs the sessions of those who sign in, and is the way in "
            f"when the provider is away: set it. {HOW_TO_MAKE_A_KEY}"
        )
    if not settings.oidc_client_id:
        raise ConfigurationError(
            "RAGQ_OIDC_ISSUER is set but RAGQ_OIDC_CLIENT_ID is not: set ragq's id at the provider."
        )
    if not read_rules(settings.oidc_roles):
        raise ConfigurationError(
            "RAGQ_OIDC_ISSUER is set but RAGQ_OIDC_ROLES is not: say what groups may do, such as staff=acme:user."
        )
    if settings.public_url is None and not is_loopback(settings.host):
        raise ConfigurationError(
            "RAGQ_OIDC_ISSUER is set but RAGQ_PUBLIC_URL is not: set it to the address at which people open the page, to which "
            "the provider sends them back."
        )
    check_address(settings.oidc_issuer or "")
