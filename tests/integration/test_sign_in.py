"""Signing in by OpenID Connect, at a small provider that runs as a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from ragq.http.audit import WRITE_SECONDS
from ragq.http.callers import FRESH_SECONDS
from tests.oidc_provider import ADA, CLIENT_ID, OidcProvider, without_times
from tests.servers import KEY, Ragq, stop, wait_until
from tests.tenants import Caller

ROLES = "staff=quince:user, leads=quince:admin, board=sorrel:reader, willow=willow:user, gone=nowhere:user, /ops=default:admin"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
WITHIN = 2 * FRESH_SECONDS


@pytest.fixture(scope="module")
def root(plain_ragq: Ragq, running_provider: OidcProvider) -> Iterator[Caller]:
    """The operator, at an API process at which people sign in."""
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **running_provider.settings(RAGQ_OIDC_ROLES=ROLES))
    caller = Caller(url, KEY)
    for tenant in ("quince", "sorrel"):
        if caller.call("GET", f"/v1/admin/tenants/{tenant}").status_code == 404:
            caller.post("/v1/admin/tenants", {"id": tenant})
    yield caller
    stop(api)


class Browser(httpx2.Client):
    """A browser that keeps cookies, and shows redirects."""

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, headers=SAME_ORIGIN, timeout=60)

    def begin(self) -> str:
        """Begin a sign-in; returns the address at the provider."""
        return self.get("/session/sign-in").headers["location"]

    def sign_in(self) -> str:
        """Sign in; returns where that leads."""
        return self.get(find_way_back(self.begin())).headers["location"]

    @property
    def session(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/session").json()
        return found


@pytest.fixture
def browser(root: Caller) -> Iterator[Browser]:
    with Browser(root.url) as browser:
        yield browser


@pytest.fixture
def other_browser(root: Caller) -> Iterator[Browser]:
    with Browser(root.url) as browser:
        yield browser


def find_way_back(url: str) -> str:
    """Sign in at the provider; returns the address to which it sends the browser back."""
    return str(httpx2.get(url).headers["location"])


def failure(url: str, code: str) -> str:
    return f"{url}/#sign-in={code}"


def test_a_person_signs_in_to_the_tenant_and_role_of_their_groups(
    provider: OidcProvider, browser: Browser, root: Caller
) -> None:
    assert browser.session["sign_in_url"] == f"{root.url}/session/sign-in"
    assert browser.get("/v1/files").status_code == 401
    assert browser.sign_in() == f"{root.url}/"
    assert browser.session["person"] == {"name": "Ada Example", "tenant": "quince", "role": "user"}
    assert browser.get("/v1/files").status_code == 200
    assert browser.get("/v1/admin/keys").json()["error"]["code"] == "insufficient_role"
    assert not browser.cookies["ragq_session"].count("Ada")
    exchanged = provider.seen("/token")[0]
    assert exchanged["redirect_uri"] == f"{root.url}/session/callback"


@pytest.mark.parametrize(
    ("groups", "tenant", "role"),
    [
        (["staff", "leads"], "quince", "admin"),
        (["board", "staff"], "quince", "user"),
        ("board", "sorrel", "reader"),
        (["/ops"], "default", "operator"),
    ],
)
def test_the_highest_role_in_the_first_tenant_counts(
    provider: OidcProvider, browser: Browser, groups: object, tenant: str, role: str
) -> None:
    provider.set(person=ADA | {"groups": groups})
    browser.sign_in()
    assert browser.session["person"] == {"name": "Ada Example", "tenant": tenant, "role": role}


def test_what_concerns_keys_concerns_people(
    provider: OidcProvider, browser: Browser, other_browser: Browser, root: Caller
) -> None:
    """A person's groups are those of documents' readers, the tenant's limits hold, and the audit log names them."""
    root.post("/v1/admin/tenants", {"id": "willow"})
    admin = root.with_key(name="chief", role="admin", tenant="willow")
    files, data = {"file": ("will.md", b"Tamsin leaves the ledger to Oriel.")}, {"purpose": "assistants"}
    file_id = admin.call("POST", "/v1/files", files=files, data=data).json()["id"]
    store_id = admin.post("/v1/vector_stores", {"name": "wills"})["id"]
    admin.post(f"/v1/vector_stores/{store_id}/files", {"file_id": file_id, "readers": ["legal"]})
    root.post("/v1/admin/tenants/willow/limits", {"requests_per_minute": 50})

    provider.set(person=ADA | {"groups": ["willow", "legal"]})
    browser.sign_in()
    provider.set(person=ADA | {"sub": "grace", "name": "Grace Example", "groups": ["willow"]})
    other_browser.sign_in()
    assert browser.get(f"/v1/files/{file_id}").status_code == 200
    assert other_browser.get(f"/v1/files/{file_id}").status_code == 404

    asked = {"model": "ragq", "input": "Who gets the ledger?", "background": True}
    answer = browser.post("/v1/responses", json=asked)
    assert answer.headers["x-ratelimit-limit-requests"] == "50"
    response_id = answer.json()["id"]
    assert browser.get(f"/v1/responses/{response_id}").status_code == 200
    assert other_browser.get(f"/v1/responses/{response_id}").status_code == 404

    store = browser.post("/v1/vector_stores", json={"name": "of a person"}).json()["id"]
    (entry,) = admin.call("GET", f"/v1/admin/audit_log?resource_ids={store}").json()["data"]
    actor = {name: entry["actor"][name] for name in ("type", "id", "name", "role")}
    assert actor == {"type": "person", "id": ADA["sub"], "name": "Ada Example", "role": "user"}


@pytest.mark.parametrize(("groups", "code"), [(["guests"], "no_role"), (None, "no_role"), (["gone"], "no_tenant")])
def test_who_has_no_role_is_told_so(
    provider: OidcProvider, browser: Browser, root: Caller, groups: object, code: str
) -> None:
    provider.set(person=ADA | {"groups": groups})
    assert browser.sign_in() == failure(root.url, code)
    assert browser.session["is_open"] is False

    def is_noted() -> bool:
        noted = root.call("GET", "/v1/admin/audit_log?event_types=session.created").json()["data"]
        return (code, "unknown") in {(entry["code"], entry["actor"]["type"]) for entry in noted}

    wait_until(is_noted, seconds=3 * WRITE_SECONDS, what="the refusal is in the log")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_signatures_of_each_kind_of_key_are_verified(provider: OidcProvider, browser: Browser, algorithm: str) -> None:
    provider.set(algorithm=algorithm)
    browser.sign_in()
    assert browser.session["is_open"]


NOW = int(time.time())


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "none"},
        {"algorithm": "HS256"},
        {"kid": "unknown"},
        {"kid": "symmetric"},
        {"kid": "key-0-ES256"},
        {"foreign": True},
        {"claims": {"iss": "https://elsewhere.example"}},
        {"claims": {"aud": "another client"}},
        {"claims": {"aud": [CLIENT_ID, "another client"]}},
        {"claims": {"aud": [CLIENT_ID, "another client"], "azp": "another client"}},
        {"claims": {"azp": "another client"}},
        {"claims": {"exp": NOW - 3600}},
        {"claims": {"exp": None}},
        {"claims": {"iat": NOW + 3600}},
        {"claims": {"iat": NOW - 3600}},
        {"claims": {"iat": None}},
        {"claims": {"nbf": NOW + 3600}},
        {"claims": {"nonce": "of another request"}},
        {"claims": {"nonce": None}},
        {"claims": {"sub": None}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": ["u-1"]}},
        {"claims": {"sub": "u-1\ud83d"}},
        {"claims": {"sub": "u-1\0"}},
        {"claims": {"nonce": "\ud83d"}},
    ],
    ids=without_times,
)
def test_a_token_with_a_fault_opens_nothing(
    provider: OidcProvider, browser: Browser, root: Caller, wrong: dict[str, Any]
) -> None:
    provider.set(**wrong)
    assert browser.sign_in() == failure(root.url, "token_invalid")
    assert "ragq_session" not in browser.cookies


def test_what_is_no_text_in_a_claim_is_replaced(provider: OidcProvider, browser: Browser) -> None:
    provider.set(person=ADA | {"name": "Ada\ud83d\0", "groups": ["le\0ads", "\ud83d", "staff"]})
    browser.sign_in()
    assert browser.session["person"] == {"name": "Ada\ufffd\ufffd", "tenant": "quince", "role": "user"}


def test_a_token_for_several_clients_counts_if_it_was_made_for_ours(provider: OidcProvider, browser: Browser) -> None:
    provider.set(claims={"aud": ["another client", CLIENT_ID], "azp": CLIENT_ID})
    browser.sign_in()
    assert browser.session["is_open"]


def test_new_keys_of_the_provider_are_found_at_once(provider: OidcProvider, browser: Browser) -> None:
    browser.sign_in()
    provider.rotate()
    browser.delete("/session")
    browser.sign_in()
    assert browser.session["is_open"]
    assert len(provider.seen("/jwks")) == 1


def test_no_request_leads_to_another_website(provider: OidcProvider, browser: Browser, root: Caller) -> None:
    assert provider.issuer
    evil = "https://evil.example/"
    names = ("next", "redirect", "redirect_uri", "return_to", "post_logout_redirect_uri")
    query = "&".join(f"{name}={evil}" for name in names)
    headers = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "Referer": evil}
    begun = browser.get(f"/session/sign-in?{query}", headers=headers).headers["location"]
    assert begun.startswith(f"{provider.issuer}/authorize?")
    assert dict(parse_qsl(urlsplit(begun).query))["redirect_uri"] == f"{root.url}/session/callback"
    assert browser.get(f"{find_way_back(begun)}&{query}", headers=headers).headers["location"] == f"{root.url}/"
    left = browser.post(f"/session/sign-out?{query}", headers=headers).json()["provider_url"]
    assert left.startswith(f"{provider.issuer}/logout?")
    assert dict(parse_qsl(urlsplit(left).query))["post_logout_redirect_uri"] == f"{root.url}/"


def test_nobody_is_signed_in_to_the_session_that_another_began(
    provider: OidcProvider, browser: Browser, other_browser: Browser, root: Caller
) -> None:
    way_back = find_way_back(browser.begin())  # a link to it is what an attacker would have others open
    for _ in range(2):
        assert other_browser.get(way_back).headers["location"] == failure(root.url, "sign_in_expired")
        other_browser.begin()
    assert not other_browser.session["is_open"]
    assert provider.seen("/token") == []
    assert browser.get(way_back).headers["location"] == f"{root.url}/"


def test_an_answer_of_the_provider_counts_once(
    provider: OidcProvider, browser: Browser, other_browser: Browser, root: Caller
) -> None:
    way_back = find_way_back(browser.begin())
    secret = browser.cookies["ragq_sign_in"]
    assert browser.get(way_back).headers["location"] == f"{root.url}/"
    assert browser.get(way_back).headers["location"] == failure(root.url, "sign_in_expired")
    copied = {"Cookie": f"ragq_sign_in={secret}"}
    assert other_browser.get(way_back, headers=copied).headers["location"] == failure(root.url, "sign_in_refused")
    assert len(provider.seen("/token")) == 2


@pytest.mark.parametrize(
    "answer", [{"says_issuer": "https://elsewhere.example"}, {"says_issuer": "", "promises_issuer": True}]
)
def test_another_providers_answer_is_not_taken_for_ours(
    plain_ragq: Ragq, provider: OidcProvider, answer: dict[str, Any]
) -> None:
    provider.set(**answer)
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **provider.settings(RAGQ_OIDC_ROLES=ROLES))
    try:
        with Browser(url) as browser:
            assert browser.sign_in() == failure(url, "sign_in_refused")
    finally:
        stop(api)
    assert provider.seen("/token") == []  # the code was shown to no one


@pytest.mark.parametrize(("checks_pkce", "code"), [(True, "sign_in_refused"), (False, "token_invalid")])
def test_a_stolen_code_opens_nothing(
    provider: OidcProvider, browser: Browser, other_browser: Browser, root: Caller, *, checks_pkce: bool, code: str
) -> None:
    provider.set(pkce=checks_pkce)
    stolen = dict(parse_qsl(urlsplit(find_way_back(browser.begin())).query))["code"]
    own = dict(parse_qsl(urlsplit(other_browser.begin()).query))["state"]
    answer = other_browser.get("/session/callback", params={"code": stolen, "state": own})
    assert answer.headers["location"] == failure(root.url, code)
    assert not other_browser.session["is_open"]


def test_a_refusal_of_the_provider_is_told(provider: OidcProvider, browser: Browser, root: Caller) -> None:
    provider.set(error="access_denied")
    assert browser.sign_in() == failure(root.url, "sign_in_refused")


def test_signing_out_ends_copies_of_the_session_and_that_at_the_provider(
    provider: OidcProvider, browser: Browser, other_browser: Browser, plain_ragq: Ragq, root: Caller
) -> None:
    browser.sign_in()
    copied = {"Cookie": f"ragq_session={browser.cookies['ragq_session']}"}
    api, replica = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **provider.settings(RAGQ_OIDC_ROLES=ROLES))
    try:
        assert httpx2.get(f"{replica}/v1/files", headers=copied).status_code == 200
        foreign = browser.post("/session/sign-out", headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.json()["error"]["code"] == "cross_site_request"
        url = browser.post("/session/sign-out").json()["provider_url"]
        assert other_browser.get("/v1/files", headers=copied).status_code == 401
        wait_until(
            lambda: httpx2.get(f"{replica}/v1/files", headers=copied).status_code == 401, seconds=WITHIN, what="ended"
        )
    finally:
        stop(api)
    assert find_way_back(url) == f"{root.url}/"
    assert provider.seen("/logout")[0]["id_token_hint"].count(".") == 2
    assert browser.post("/session/sign-out").json() == {"object": "session.ended", "provider_url": None}


def test_sessions_end_when_their_tenant_is_suspended_or_deleted(
    provider: OidcProvider, browser: Browser, root: Caller
) -> None:
    provider.set(person=ADA | {"groups": ["board"]})
    browser.sign_in()
    assert browser.get("/v1/files").status_code == 200
    root.post("/v1/admin/tenants/sorrel/suspend")
    wait_until(lambda: browser.get("/v1/files").status_code == 403, seconds=WITHIN, what="suspended")
    assert not browser.session["is_open"]
    assert browser.sign_in() == failure(root.url, "no_tenant")
    root.post("/v1/admin/tenants/sorrel/resume")
    browser.sign_in()
    assert browser.get("/v1/files").status_code == 200
    assert root.call("DELETE", "/v1/admin/tenants/sorrel").status_code == 200
    wait_until(lambda: browser.get("/v1/files").status_code in (401, 403), seconds=WITHIN, what="deleted")
    wait_until(
        lambda: root.call("GET", "/v1/admin/tenants/sorrel").status_code == 404, seconds=60, what="sorrel is removed"
    )
    root.post("/v1/admin/tenants", {"id": "sorrel"})


def test_an_admin_sees_who_is_signed_in_and_ends_the_sessions_of_one(
    provider: OidcProvider, browser: Browser, other_browser: Browser, plain_ragq: Ragq, root: Caller
) -> None:
    provider.set(person=ADA | {"sub": "u-7", "name": "Grace Example"})
    browser.sign_in()
    provider.set(person=ADA | {"sub": "u-8", "groups": ["leads"]})
    other_browser.sign_in()
    assert other_browser.get("/v1/admin/sessions?tenant=sorrel").json()["error"]["code"] == "insufficient_role"
    listed = other_browser.get("/v1/admin/sessions").json()["data"]
    (grace,) = [session for session in listed if session["subject"] == "u-7"]
    assert (grace["name"], grace["tenant"], grace["role"]) == ("Grace Example", "quince", "user")
    assert 0 < grace["expires_at"] - grace["created_at"] <= 8 * 3600

    def run(*arguments: str) -> str:
        return plain_ragq.run("sessions", *arguments, RAGQ_URL=root.url, RAGQ_API_KEY=KEY).stdout

    assert "Grace Example" in run("list", "--tenant", "quince")
    assert run("end", "u-7") == "Sessions of u-7 that have ended: 0.\n"  # of the tenant default
    assert run("end", "u-7", "--tenant", "quince") == "Sessions of u-7 that have ended: 1.\n"
    wait_until(lambda: not browser.session["is_open"], seconds=WITHIN, what="Grace is out")
    assert other_browser.session["is_open"]


def test_a_session_ends_when_the_provider_says(provider: OidcProvider, browser: Browser) -> None:
    provider.set(claims={"session_expiry": int(time.time()) + 3})
    browser.sign_in()
    assert browser.session["is_open"]
    wait_until(lambda: not browser.session["is_open"], seconds=3 + WITHIN, what="the session ends")


def test_sessions_and_keys_go_on_while_the_provider_is_away(plain_ragq: Ragq, root: Caller) -> None:
    assert root
    with OidcProvider() as provider:
        settings = provider.settings(RAGQ_OIDC_ROLES="*=quince:reader")
        api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **settings)
        unaware, unaware_url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **settings)
        provider.set(person=ADA | {"groups": []})
        browser = Browser(url)
        browser.sign_in()
        way_back = find_way_back(browser.begin())
    try:
        assert browser.get("/v1/files").status_code == 200
        assert browser.get(way_back).headers["location"] == failure(url, "provider_unavailable")
        assert browser.session["person"]["role"] == "reader"
        with Browser(unaware_url) as other:  # its process has not asked the provider before
            assert other.begin() == failure(unaware_url, "provider_unavailable")
            assert other.post("/session", json={"key": KEY}).status_code == 204
            assert other.get("/v1/files").status_code == 200
        assert browser.post("/session/sign-out").json()["provider_url"].startswith(provider.issuer)
    finally:
        browser.close()
        stop(api)
        stop(unaware)


def test_cookies_are_for_this_site_and_for_no_script(provider: OidcProvider, root: Caller) -> None:
    with httpx2.Client(base_url=root.url, headers={"X-Forwarded-Proto": "https"}) as http:
        begun = http.get("/session/sign-in")
        strict = {"HttpOnly", "SameSite=strict", "Secure"}
        cookie = begun.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax", "Secure", "Path=/session", "Max-Age=600"} <= set(cookie.split("; "))
        assert (begun.headers["cache-control"], begun.headers["referrer-policy"]) == ("no-store", "no-referrer")
        sent = {"Cookie": cookie.split(";")[0]}
        done = http.get(find_way_back(begun.headers["location"]), headers=sent)
        session, token, ended = done.headers.get_list("set-cookie")
        assert {*strict, "Path=/"} <= set(session.split("; "))
        assert {*strict, "Path=/session"} <= set(token.split("; "))
        assert "Max-Age=0" in ended
    assert provider.issuer


def test_without_a_provider_there_is_no_sign_in(ragq: Ragq) -> None:
    with Browser(ragq.url) as browser:
        assert browser.session["sign_in_url"] is None
        for path in ("/session/sign-in", "/session/callback?code=x&state=y"):
            answer = browser.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_sign_in")
