"""Find e-mail addresses and URLs that the sources do not have: their parts may be known words, so that words do not tell."""

from __future__ import annotations

import re
from itertools import islice

MAX_ADDRESSES = 10  # of one statement
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+|\bhttps?://[^\s<>\[\]]{1,500}", re.IGNORECASE)
_SCHEME = re.compile(r"https?://(?:www\.)?")
_SIGNS = ".,;:!?)>\"'*_`/"


def find_new_address(text: str, given: str) -> str:
    """Find the first address that is not given; empty if there is none.

    Args:
        given: In lower case.
    """
    for match in islice(_ADDRESS.finditer(text), MAX_ADDRESSES):
        address = match.group().rstrip(_SIGNS)
        if not _holds(given, _SCHEME.sub("", address.casefold())):
            return address
    return ""


def _holds(given: str, address: str) -> bool:
    """Tell whether a text has an address, and not as a part of another one."""
    start = given.find(address)
    while start >= 0:
        before, after = given[max(0, start - 1) : start], given[start + len(address) :][:2]
        if not re.match(r"[\w@.+-]", before) and not re.match(r"[\w-]|[./]\w", after):
            return True
        start = given.find(address, start + 1)
    return False
