"""Signing in and out of the page at an OpenID provider, as people do it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.oidc_provider import ADA, OidcProvider
from tests.servers import Ragq, stop

KEY = "a key that only this test knows"
PLACE = "/?file=file-1&start=0&end=5"  # of a citation, which leads to nothing here


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        provider.set(page=True)
        yield provider


@pytest.fixture
def shared(ragq: Ragq, provider: OidcProvider) -> Iterator[str]:
    """The address of an API process at which people sign in; named before `visitor`, it outlives its pages."""
    api, url = ragq.spawn_api(RAGQ_API_KEY=KEY, **provider.settings(RAGQ_OIDC_ROLES="staff=default:reader"))
    yield url
    stop(api)


def test_people_sign_in_and_out_with_the_providers_page(shared: str, visitor: Visitor, provider: OidcProvider) -> None:
    visitor.expected = ["404"]
    visitor.allow(provider.issuer)
    page = visitor.visit(shared + PLACE)
    dialog = page.get_by_role("dialog", name="Sign in, or enter an API key")
    provider.set(page=True, person=ADA | {"groups": ["guests"]})
    dialog.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(dialog.get_by_role("alert")).to_contain_text("None of your groups has a role here.")
    assert page.url == f"{shared}/"
    provider.set(page=True)
    dialog.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(page.get_by_text("Ada Example")).to_have_attribute("title", "reader of default")
    expect(dialog).to_be_hidden()
    expect(page.locator("#documents li")).to_have_count(1)
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies.keys() == {"ragq_session", "ragq_id_token"}
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies.values())
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    assert urlsplit(page.url).netloc == urlsplit(shared).netloc
    assert [call["client_id"] for call in provider.seen("/logout")] == ["ragq"]
    assert page.context.cookies() == []


def test_the_page_goes_on_where_the_sign_in_began(shared: str, visitor: Visitor, provider: OidcProvider) -> None:
    visitor.expected = ["404"]
    visitor.allow(provider.issuer)
    page = visitor.visit(shared + PLACE)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(page.get_by_text("Ada Example")).to_be_visible()
    page.wait_for_url(shared + PLACE)
