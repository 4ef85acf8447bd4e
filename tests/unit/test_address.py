"""URLs of Valkey."""

from __future__ import annotations

import pytest

from ragq.client.replication.address import read_address, rq_sentinels
from ragq.errors import ConfigurationError


def test_a_url_of_sentinels_has_hosts_a_name_a_login_and_a_database() -> None:
    url = "valkey+sentinel://me:p%40ss@a:26379,[::1]:26380,c/mymaster/3?sentinel_password=other"
    address = read_address(url)
    assert address.sentinels == (("a", 26379), ("::1", 26380), ("c", 26379))
    assert address.primary == "mymaster"
    assert address.options == {"username": "me", "password": "p@ss", "db": 3}
    assert address.sentinel_options == {"password": "other"}
    assert address.host == ("a", 26379)


def test_sentinels_over_tls_pass_their_certificates_on() -> None:
    address = read_address("rediss+sentinel://a,b/main?ssl_ca_certs=/ca.pem")
    assert address.options["ssl_ca_certs"] == "/ca.pem"
    assert "SSL" in address.options["connection_class"].__name__
    assert address.sentinel_options == {"ssl": True, "ssl_ca_certs": "/ca.pem"}


def test_other_urls_are_redis_pys() -> None:
    assert read_address("redis://h:1/2").host == ("h", 1)
    assert read_address("unix:///v.sock").host is None
    assert rq_sentinels("redis://h") is None


def test_rq_gets_the_same_sentinels() -> None:
    found = rq_sentinels("valkey+sentinel://:pw@a,b/main/1")
    assert found
    assert (found["INSTANCES"], found["MASTER_NAME"], found["DB"]) == ([("a", 26379), ("b", 26379)], "main", 1)
    assert found["PASSWORD"] == "pw"


@pytest.mark.parametrize("url", ["valkey+sentinel://a,b", "valkey+sentinel:///main", "valkey+sentinel://a:x/main"])
def test_an_incomplete_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="has the form"):
        read_address(url)
