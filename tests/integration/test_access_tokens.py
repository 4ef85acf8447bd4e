"""Access tokens of an OpenID provider in the place of API keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx2
import openai
import pytest
from websockets.sync.client import connect

from ragq.http.callers import FRESH_SECONDS
from ragq.http.keys import GUESSES
from tests.oidc_provider import ADA, CLIENT_ID, OidcProvider, without_times
from tests.servers import KEY, Ragq, stop, wait_until
from tests.tenants import Caller

AUDIENCE = "https://ragq.example.com/api"
WITHIN = 2 * FRESH_SECONDS
NOW = int(time.time())
ADDRESSES = count(1)


@pytest.fixture(scope="module")
def root(plain_ragq: Ragq, running_provider: OidcProvider) -> Iterator[Caller]:
    """The operator, at an API process that takes access tokens."""
    settings = running_provider.settings(
        RAGQ_OIDC_ROLES="staff=larch:user, gone=nowhere:user", RAGQ_OIDC_AUDIENCE=AUDIENCE
    )
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **settings)
    caller = Caller(url, KEY)
    caller.post("/v1/admin/tenants", {"id": "larch"})
    yield caller
    stop(api)


def ask_with(root: Caller, token: str) -> httpx2.Response:
    """Use a token, each time from another address, where no one has guessed before."""
    transport = httpx2.HTTPTransport(local_address=f"127.1.0.{next(ADDRESSES)}")
    with httpx2.Client(transport=transport, timeout=60) as client:
        return client.get(f"{root.url}/v1/files", headers={"Authorization": f"Bearer {token}"})


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_program_works_with_the_token_of_the_person_who_runs_it(provider: OidcProvider, root: Caller) -> None:
    token = provider.issue(aud=[AUDIENCE, "another"], azp="a program")
    with openai.OpenAI(base_url=f"{root.url}/v1", api_key=token, max_retries=0) as sdk:
        file = sdk.files.create(file=("harbour.md", b"The lighthouse is 61 metres tall."), purpose="assistants")
        assert [one.id for one in sdk.files.list()] == [file.id]
    assert root.call("GET", f"/v1/files/{file.id}").status_code == 404  # it is the tenant larch's
    assert code_of(Caller(root.url, token).call("GET", "/v1/admin/keys")) == (403, "insufficient_role")


@pytest.mark.parametrize(
    ("claims", "behaviour"),
    [
        ({"aud": CLIENT_ID}, {}),
        ({}, {}),
        ({"aud": AUDIENCE, "nonce": "n"}, {}),  # an ID token
        ({"aud": AUDIENCE, "iss": "https://elsewhere.example"}, {}),
        ({"aud": AUDIENCE, "exp": NOW - 3600}, {}),
        ({"aud": AUDIENCE, "exp": None}, {}),
        ({"aud": AUDIENCE, "sub": None}, {}),
        ({"aud": AUDIENCE}, {"algorithm": "HS256"}),
        ({"aud": AUDIENCE}, {"foreign": True}),
    ],
    ids=without_times,
)
def test_a_token_with_a_fault_is_refused(
    provider: OidcProvider, root: Caller, claims: dict[str, Any], behaviour: dict[str, Any]
) -> None:
    provider.set(**behaviour)
    assert code_of(ask_with(root, provider.issue(**claims))) == (401, "token_invalid")


@pytest.mark.parametrize(("groups", "code"), [(["guests"], "no_role"), (["gone"], "no_tenant")])
def test_a_token_of_someone_without_a_role_is_refused(
    provider: OidcProvider, root: Caller, groups: list[str], code: str
) -> None:
    assert code_of(ask_with(root, provider.issue(aud=AUDIENCE, groups=groups))) == (403, code)


def test_wrong_tokens_count_as_guesses(provider: OidcProvider, root: Caller) -> None:
    wrong = Caller(root.url, provider.issue(aud="another"))
    codes = {code_of(wrong.call("GET", "/v1/files")) for _ in range(2 * GUESSES)}
    assert codes == {(401, "token_invalid"), (429, "too_many_wrong_keys")}
    assert root.call("GET", "/v1/files").status_code == 200


def test_a_token_opens_no_session(provider: OidcProvider, root: Caller) -> None:
    """The cookie of a session that no key opened would be the operator's."""
    token = provider.issue(aud=AUDIENCE)
    assert ask_with(root, token).status_code == 200
    with httpx2.Client(base_url=root.url, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60) as browser:
        assert code_of(browser.post("/session", json={"key": token})) == (401, "invalid_api_key")
        assert not browser.cookies
        assert browser.get("/session").json()["role"] is None
        assert browser.get("/v1/admin/tenants").status_code == 401


def test_a_connection_ends_with_the_tenant_of_its_token(provider: OidcProvider, root: Caller) -> None:
    question = json.dumps({"type": "response.create", "model": "ragq", "input": "Who?"})
    address = root.url.replace("http", "ws") + "/v1/responses"
    token = provider.issue(aud=AUDIENCE)
    with connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as socket:

        def ask() -> str:
            """Ask a question; returns the last event's type, or an error's code."""
            socket.send(question)
            while (event := json.loads(socket.recv()))["type"] not in ("error", "response.completed"):
                pass
            return str(event.get("error", {}).get("code") or event["type"])

        assert ask() == "response.completed"
        root.post("/v1/admin/tenants/larch/suspend")
        wait_until(lambda: ask() == "tenant_suspended", seconds=WITHIN, what="the connection ends")
    root.post("/v1/admin/tenants/larch/resume")
    wait_until(lambda: ask_with(root, token).status_code == 200, seconds=WITHIN, what="larch goes on")


def test_without_an_audience_no_token_is_taken(provider: OidcProvider, plain_ragq: Ragq) -> None:
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY, **provider.settings(RAGQ_OIDC_ROLES="*=larch:user"))
    try:
        for audience in (AUDIENCE, CLIENT_ID):
            token = provider.issue(aud=audience, **ADA)
            assert code_of(Caller(url, token).call("GET", "/v1/files")) == (401, "invalid_api_key")
    finally:
        stop(api)
