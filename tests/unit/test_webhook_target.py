"""Which targets of webhooks are inside."""

from __future__ import annotations

import pytest

from ragq.client.webhooks.target import check_url, is_public
from ragq.errors import InvalidRequestError
from ragq.settings import Settings

INSIDE = """127.0.0.1 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 255.255.255.255 ::1 ::
    fe80::1 fe80::1%eth0 fd00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: ::7f00:1 fec0::1"""


@pytest.mark.parametrize("address", INSIDE.split())
def test_an_inside_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["http://hooks.test/", "https://[::1]/", "https://hooks.test:0/", "https://hooks.test:x/", "https://[/", "x"]
    + [f"https://{host}/" for host in ("127.1", "127.0.0.1.", "127.0.1", "2130706433", "0x7f000001", "10.1")],
)
def test_a_url_that_can_be_no_target_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_url(Settings(_env_file=None), url)
    assert caught.value.param == "url"


def test_only_allowed_hosts_may_be_inside_or_without_tls() -> None:
    settings = Settings(_env_file=None, webhook_allowed_hosts="Hooks.inside, 127.0.0.1")
    check_url(settings, "http://hooks.inside:81/a?b=c")
    check_url(settings, "http://127.0.0.1/")
    check_url(settings, "https://hooks.test/")
    with pytest.raises(InvalidRequestError):
        check_url(settings, "http://other.inside/")
