"""Check the API key in constant time, and slow down guesses."""

from __future__ import annotations

import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ragq.errors import AuthenticationError, OverloadedError
from ragq.settings import LEAST_KEY_CHARACTERS

GUESSES = 10  # wrong keys that an address may send at once
GUESS_SECONDS = 6.0  # after which it may send one more
KNOWN_SECONDS = 3600.0  # an address that sent the right key is remembered this long
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Address:
    """The keys sent from an address.

    Attributes:
        guesses: Wrong keys, minus one for each GUESS_SECONDS since `changed_at`.
    """

    guesses: float = 0.0
    changed_at: float = 0.0
    known_until: float = -math.inf


class KeyCheck:
    """Compares keys with the right one.

    After GUESSES wrong keys from one address, its keys are refused without a comparison until GUESS_SECONDS have passed.
    An address that sent the right key within the last hour is exempt, so that another client behind it cannot lock it
    out, unless the key is short enough to guess. Each API process counts for itself.
    """

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = key
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()  # in the order of their last key

    def check(self, given: str, host: str) -> None:
        """Accept the right key.

        Args:
            host: The client's address.

        Raises:
            AuthenticationError: The key is missing or wrong.
            OverloadedError: Too many wrong keys came from this address.
        """
        given = given.strip()
        if not given:
            raise _wrong_key()
        address, now = self._find(host), self._clock()
        address.guesses = max(0.0, address.guesses - (now - address.changed_at) / GUESS_SECONDS)
        address.changed_at = now
        is_over = address.guesses > GUESSES - 1
        if is_over and not (now < address.known_until and len(self.key) >= LEAST_KEY_CHARACTERS):
            raise _too_many(address)
        if secrets.compare_digest(given.encode(), self.key.encode()):
            address.known_until = now + KNOWN_SECONDS
            return
        if is_over:
            raise _too_many(address)
        address.guesses += 1
        raise _wrong_key()

    def _find(self, host: str) -> _Address:
        name = _group(host)
        address = self._addresses.setdefault(name, _Address())
        self._addresses.move_to_end(name)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return address


def _group(host: str) -> str:
    """The network of one client: for IPv6 its /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # no address: the request came over a Unix socket
        return ""
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:  # an IPv4 client on a dual-stack socket
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _wrong_key() -> AuthenticationError:
    return AuthenticationError(
        "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'; it is RAGQ_API_KEY."
    )


def _too_many(address: _Address) -> OverloadedError:
    wait = max(1.0, (address.guesses - (GUESSES - 1)) * GUESS_SECONDS)
    return OverloadedError(
        f"Too many wrong keys came from this address. Try again in {math.ceil(wait)} s.",
        code="too_many_wrong_keys",
        retry_after_seconds=wait,
    )
