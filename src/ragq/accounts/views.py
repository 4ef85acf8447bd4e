"""What of a tenant's data a caller may see."""

from __future__ import annotations

import msgspec


class TenantView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tenant, as far as one caller may see it. It travels with the jobs that the caller queues.

    Attributes:
        id: The tenant's.
        key_id: Of the caller; its answers and uploads carry it.
        stores: The vector stores that the key is limited to; None for all.
        groups: Of the caller, by which it may read documents that have readers; None for all documents.
        own_only: Answers, and files that are in no store, are hidden from this caller if another key has them.
        shares: Other tenants share stores with this one.
    """

    id: str
    key_id: str = ""
    stores: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = ()
    own_only: bool = False
    shares: bool = False

    def owns(self, key_id: str) -> bool:
        """Whether what this key has asked or uploaded may be shown."""
        return not self.own_only or key_id == self.key_id

    @property
    def owner(self) -> str:
        """Tells repeats of callers apart who must not find each other's answers."""
        return f"{self.id}\n{self.key_id}" if self.own_only else self.id


_VIEW = msgspec.json.Decoder(TenantView)


def write_view(view: TenantView) -> str:
    """Serialize a view as JSON."""
    return msgspec.json.encode(view).decode()


def read_view(written: str) -> TenantView:
    return _VIEW.decode(written)


Viewer = str | TenantView  # a tenant's id alone stands for all of its data: for the service itself


def view_of(viewer: Viewer) -> TenantView:
    """The view of a viewer."""
    return TenantView(viewer, groups=None) if isinstance(viewer, str) else viewer


def tenant_of(viewer: Viewer) -> str:
    """The tenant's id."""
    return viewer if isinstance(viewer, str) else viewer.id
