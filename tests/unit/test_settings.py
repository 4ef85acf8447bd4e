"""Settings as they come from the environment, and which of them may not be used together."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import SecretStr

from ragq.errors import ConfigurationError
from ragq.http.exposure import check_exposure
from ragq.settings import Settings, read_settings

OPTIONAL = sorted(name for name, field in Settings.model_fields.items() if field.default is None)
SECRETS = [name for name in OPTIONAL if SecretStr in get_args(Settings.model_fields[name].annotation)]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no `.env` is found."""
    monkeypatch.chdir(tmp_path)


def settings(**changed: Any) -> Settings:
    return Settings(_env_file=None, **changed)


def test_every_secret_is_optional_and_known_here() -> None:
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    secret = {
        name
        for name, kind in kinds.items()
        if kind is SecretStr or (get_origin(kind) is types.UnionType and SecretStr in get_args(kind))
    }
    assert set(SECRETS) == secret
    assert {"api_key", "llm_api_key", "embedding_api_key", "valkey_url", "database_url"} <= secret


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("name", OPTIONAL)
def test_an_empty_or_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str, blank: str) -> None:
    monkeypatch.setenv(f"RAGQ_{name.upper()}", blank)
    assert getattr(Settings(), name) is None


def test_an_empty_line_of_a_template_counts_as_unset(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RAGQ_API_KEY=\nRAGQ_LLM_BASE_URL= \nRAGQ_PORT=\n")
    found = Settings()
    assert (found.api_key, found.llm_base_url, found.port) == (None, None, 8000)


@pytest.mark.parametrize("key", [None, "0123456789abcde"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "ragq.example", "::ffff:192.0.2.7"])
def test_beyond_loopback_a_key_is_needed_that_cannot_be_guessed(host: str, key: str | None) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -hex 32"):
        check_exposure(settings(host=host, api_key=key and SecretStr(key)))
    check_exposure(settings(host=host, api_key=SecretStr("0123456789abcdef")))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(host: str) -> None:
    keyless = settings(host=host)
    check_exposure(keyless)
    assert keyless.api_key is None


@pytest.mark.parametrize("key", ["schlüssel-der-länge-20", " with-a-space-before-it", "with\ttab-between-words"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="characters that a header cannot carry"):
        check_exposure(settings(api_key=key))


@pytest.mark.parametrize("origin", ["*", "app.example.com", "https://app.example.com/", "HTTPS://app.example.com"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="not an origin"):
        check_exposure(settings(cors_origins=f"https://a.example, {origin}"))


@pytest.mark.parametrize("kind", ["LLM", "EMBEDDING", "RERANK"])
def test_an_endpoint_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv(f"RAGQ_{kind}_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ConfigurationError, match=f"RAGQ_{kind}_MODEL is not"):
        read_settings.__wrapped__()


SIGN_IN = {
    "api_key": SecretStr("0123456789abcdef"),
    "oidc_issuer": "https://login.example.com",
    "oidc_client_id": "ragq",
    "oidc_roles": "staff=acme:user",
}


def test_the_settings_that_the_page_on_sign_in_shows_are_complete(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "sign-in.md").read_text()
    (tmp_path / ".env").write_text(page.partition("```ini\n")[2].partition("```")[0])
    found = Settings()
    check_exposure(found)
    assert (found.oidc_client_id, found.page_url) == ("ragq", "https://ragq.example.com")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"api_key": None}, "RAGQ_API_KEY is not"),
        ({"oidc_client_id": ""}, "RAGQ_OIDC_CLIENT_ID is not"),
        ({"oidc_roles": ""}, "RAGQ_OIDC_ROLES is not"),
        ({"oidc_roles": "staff"}, "group=tenant:role"),
        ({"host": "0.0.0.0"}, "RAGQ_PUBLIC_URL is not"),
        ({"oidc_issuer": "http://login.example.com"}, "must begin with https://"),
        ({"oidc_issuer": "login.example.com"}, "must begin with https://"),
        ({"oidc_issuer": "https://[login"}, "must begin with https://"),
    ],
)
def test_a_sign_in_that_cannot_work_is_refused(changed: dict[str, Any], match: str) -> None:
    check_exposure(settings(**SIGN_IN))
    check_exposure(settings(**(SIGN_IN | {"oidc_issuer": "http://127.0.0.1:9000"})))
    with pytest.raises(ConfigurationError, match=match):
        check_exposure(settings(**(SIGN_IN | changed)))
