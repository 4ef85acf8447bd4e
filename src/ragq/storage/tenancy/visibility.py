"""Who sees what of a tenant: conditions for statements, and the values in them.

Only these read the limits of keys, the readers of documents, the owners of answers and the shares of stores. A condition whose
name begins with `see` begins with AND, and is empty for a viewer whom it would not keep from anything.
"""

from __future__ import annotations

from typing import Any

from ragq.accounts.views import Viewer, view_of

# The first time that a document of a tenant gets readers, and then for good.
HAVE_READERS = "UPDATE tenants SET has_readers = true WHERE id = %(tenant)s AND NOT has_readers"

_SHARED = "SELECT s.vector_store_id FROM store_shares s WHERE s.with_tenant_id = %(tenant)s"


def values_of(viewer: Viewer) -> dict[str, Any]:
    """The values in the conditions, with the tenant's id as `tenant`."""
    view = view_of(viewer)
    return {
        "tenant": view.id,
        "view_stores": None if view.stores is None else list(view.stores),
        "view_groups": None if view.groups is None else list(view.groups),
        "view_key": view.key_id,
    }


def of_tenant(viewer: Viewer, tenant: str, store: str) -> str:
    """The condition, without AND, for what is in the tenant's own stores, or in those that others share with it.

    Args:
        tenant: Column with the tenant, as `store` is the one with the store.
    """
    own = f"{tenant} = %(tenant)s"
    return f"({own} OR {store} IN ({_SHARED}))" if view_of(viewer).shares else own


def see_stores(viewer: Viewer, store: str) -> str:
    """The condition for the stores that a key is limited to; `store` is the column with their ids."""
    return "" if view_of(viewer).stores is None else f" AND {store} = ANY(%(view_stores)s::text[])"


def see_readers(viewer: Viewer, document: str = "") -> str:
    """The condition for the documents that a viewer may read, of any store.

    The groups are those of one tenant: another's documents are seen if they have no readers.

    Args:
        document: Name of `vector_store_files` with a dot behind it, if the statement gives it one.
    """
    readable = _readable(viewer, document)
    return f" AND {readable}" if readable else ""


def _readable(viewer: Viewer, document: str) -> str:
    view, readers = view_of(viewer), f"{document}readers"
    needed = [f"{document}tenant_id = %(tenant)s"] if view.shares else []
    needed += [] if view.groups is None else [f"{readers} && %(view_groups)s::text[]"]
    return f"({readers} IS NULL OR {' AND '.join(needed)})" if needed else ""


def hides_documents(viewer: Viewer, stores: str) -> str:
    """Whether one of these stores has a document that the viewer may not read.

    Args:
        stores: SQL that gives their ids.
    """
    readable = _readable(viewer, "h.")
    if not readable:
        return "false"
    return f"""EXISTS (SELECT FROM vector_store_files h
                       WHERE h.vector_store_id IN ({stores}) AND h.readers IS NOT NULL AND NOT {readable})"""


def see_documents(viewer: Viewer, document: str) -> str:
    """The condition for documents of the stores and with the readers that a viewer sees, by the name of `vector_store_files`."""
    return see_stores(viewer, f"{document}.vector_store_id") + see_readers(viewer, f"{document}.")


def see_files(viewer: Viewer, file: str) -> str:
    """The condition for the tenant's files, by the name of `files`.

    A file is seen in any store where its document is; one that is in no store by all, or by those who uploaded it.
    """
    inside = see_documents(viewer, "m")
    if not inside:
        return ""
    of_file = f"SELECT FROM vector_store_files m WHERE m.file_id = {file}.id"
    uploaded = f" AND EXISTS (SELECT FROM file_keys k WHERE k.file_id = {file}.id AND k.key_id = %(view_key)s)"
    own = uploaded if view_of(viewer).own_only else ""
    return f" AND (EXISTS ({of_file}{inside}) OR NOT EXISTS ({of_file}){own})"


def find_file(viewer: Viewer, file: str) -> str:
    """The condition, without AND, to open a file: one of the tenant's that is seen, or one in a store that others share."""
    own = f"{file}.tenant_id = %(tenant)s{see_files(viewer, file)}"
    if not view_of(viewer).shares:
        return own
    inside = f"m.file_id = {file}.id AND m.vector_store_id IN ({_SHARED}){see_documents(viewer, 'm')}"
    return f"({own} OR EXISTS (SELECT FROM vector_store_files m WHERE {inside}))"


def see_own(viewer: Viewer, key_id: str = "key_id") -> str:
    """The condition for answers and uploads; `key_id` is the column with the key that made them."""
    return f" AND {key_id} = %(view_key)s" if view_of(viewer).own_only else ""


def see_no_uploads(viewer: Viewer, file: str) -> str:
    """The condition for files that no other key has uploaded, for a viewer who does not see the uploads of others."""
    others = f"SELECT FROM file_keys k WHERE k.file_id = {file}.id AND k.key_id <> %(view_key)s"
    return f" AND NOT EXISTS ({others})" if view_of(viewer).own_only else ""
