"""What callers may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a key allows. Each role includes those before it."""

    READER = "reader"  # ask, search, and read
    USER = "user"  # put in documents, change and delete them
    ADMIN = "admin"  # keys and webhooks of the tenant
    OPERATOR = "operator"  # tenants, metrics and workers: no role of a key, but an admin's of the tenant `default`

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}
