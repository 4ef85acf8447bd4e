"""Conversations in PostgreSQL: items in their order, and the responses that are to add some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.visibility import see_own

Item = dict[str, Any]

RECENT_ITEMS = 500  # read as the history of a question
RECENT_BYTES = 2_000_000
TITLE_BYTES = 50_000  # a longer first message names no conversation
TITLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """A conversation without its items."""

    id: str
    metadata: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ListedConversation(ConversationRecord):
    """A conversation in a list; `first` is its first message of a user as JSON, if it is not too long to name it by."""

    first: str | None

    @property
    def title(self) -> str | None:
        """The `title` of its metadata, or the beginning of the first question; None if it has neither."""
        return self.metadata.get("title") or (_read_text(json.loads(self.first)) if self.first else None)


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item; `item` is JSON, without the id."""

    id: str
    item: str


@dataclass(frozen=True, slots=True)
class OpenResponse:
    """A response whose items are not in its conversation yet."""

    response_id: str
    age_seconds: float


_CONVERSATION = "SELECT id, metadata, created_at FROM conversations WHERE tenant_id = %(tenant)s AND id = %(id)s"
_CONVERSATIONS = f"""
    SELECT c.id, c.metadata, c.created_at,
           (SELECT i.item FROM conversation_items i
            WHERE i.conversation_id = c.id AND strpos(i.item, '"role": "user"') > 0 AND octet_length(i.item) <= {TITLE_BYTES}
            ORDER BY i.created_at, i.id LIMIT 1) AS first
    FROM conversations c WHERE c.tenant_id = %(tenant)s"""  # noqa: S608  (constants)
_ITEMS = Listed(
    "conversation_items",
    "SELECT id, item FROM conversation_items WHERE tenant_id = %(tenant)s AND conversation_id = %(conversation)s",
    "tenant_id = %(tenant)s AND conversation_id = %(conversation)s",
)
_RECENT = f"""
    SELECT id, item FROM (
        SELECT id, item, created_at, sum(octet_length(item)) OVER (ORDER BY created_at DESC, id DESC) AS bytes
        FROM (SELECT id, item, created_at FROM conversation_items
              WHERE tenant_id = %(tenant)s AND conversation_id = %(conversation)s
              ORDER BY created_at DESC, id DESC LIMIT {RECENT_ITEMS}) newest) counted
    WHERE bytes <= {RECENT_BYTES} ORDER BY created_at, id"""  # noqa: S608  (constants)


class Conversations:
    """All conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: Viewer, *, metadata: dict[str, str], items: Sequence[tuple[str, Item]]
    ) -> ConversationRecord:
        """Create a conversation with its first items, each with its id."""
        id_ = new_id("conv_")
        async with self._database.for_tenant(tenant).transaction() as connection:
            await connection.execute(
                "INSERT INTO conversations (id, tenant_id, key_id, metadata) VALUES (%s, %s, %s, %s)",
                [id_, tenant_of(tenant), view_of(tenant).key_id, json.dumps(metadata)],
            )
            await _append(connection, tenant_of(tenant), id_, items)
        return await self.get(tenant, id_)

    async def get(self, tenant: Viewer, conversation_id: str, *, param: str = "conversation_id") -> ConversationRecord:
        """Find a conversation.

        Raises:
            NotFoundError: This tenant has no conversation with this id.
        """
        id_ = conversation_id.replace("\0", "")
        query = _CONVERSATION + see_own(tenant)
        found = await self._database.for_tenant(tenant).records(ConversationRecord, query, id=id_)
        if not found:
            raise _not_found(conversation_id, param)
        return found[0]

    async def list_conversations(self, tenant: Viewer, page: Page) -> list[ListedConversation]:
        """List conversations by age; one more than `page.limit` if there are more."""
        listed = Listed(
            "conversations",
            _CONVERSATIONS + see_own(tenant, "c.key_id"),
            "tenant_id = %(tenant)s" + see_own(tenant),
            alias="c",
        )
        return await read_page(self._database.for_tenant(tenant), ListedConversation, listed, page)

    async def update(self, tenant: Viewer, conversation_id: str, metadata: dict[str, str]) -> ConversationRecord:
        """Replace the metadata."""
        await self._database.for_tenant(tenant).row(
            f"""UPDATE conversations SET metadata = %(metadata)s
                WHERE tenant_id = %(tenant)s AND id = %(id)s{see_own(tenant)} RETURNING id""",  # noqa: S608
            id=conversation_id.replace("\0", ""),
            metadata=json.dumps(metadata),
        )
        return await self.get(tenant, conversation_id)

    async def delete(self, tenant: Viewer, conversation_id: str) -> None:
        """Delete a conversation and its items; its responses are kept."""
        row = await self._database.for_tenant(tenant).row(
            f"DELETE FROM conversations WHERE tenant_id = %(tenant)s AND id = %(id)s{see_own(tenant)} RETURNING id",  # noqa: S608
            id=conversation_id.replace("\0", ""),
        )
        if row is None:
            raise _not_found(conversation_id)

    async def add_items(self, tenant_id: str, conversation_id: str, items: Sequence[tuple[str, Item]]) -> None:
        """Append items, each with its id.

        Raises:
            NotFoundError: This tenant has no conversation with this id.
        """
        async with self._database.for_tenant(tenant_id).transaction() as connection:
            if not await _lock(connection, tenant_id, conversation_id.replace("\0", "")):
                raise _not_found(conversation_id)
            await _append(connection, tenant_id, conversation_id, items)

    async def list_items(self, tenant_id: str, conversation_id: str, page: Page) -> list[ItemRecord]:
        """List items by their place; one more than `page.limit` if there are more."""
        return await read_page(
            self._database.for_tenant(tenant_id),
            ItemRecord,
            _ITEMS,
            page,
            conversation=conversation_id.replace("\0", ""),
        )

    async def list_recent(self, tenant_id: str, conversation_id: str) -> list[Item]:
        """Read the last items, oldest first, up to a number and a size."""
        records = await self._database.for_tenant(tenant_id).records(ItemRecord, _RECENT, conversation=conversation_id)
        return [read_item(record) for record in records]

    async def find_item(self, tenant: Viewer, item_id: str) -> ItemRecord | None:
        """Find an item of any of the conversations that the viewer sees."""
        query = "SELECT i.id, i.item FROM conversation_items i JOIN conversations c ON c.id = i.conversation_id"
        query += " WHERE i.tenant_id = %(tenant)s AND i.id = %(id)s" + see_own(tenant, "c.key_id")
        found = await self._database.for_tenant(tenant).records(ItemRecord, query, id=item_id.replace("\0", ""))
        return found[0] if found else None

    async def get_item(self, tenant_id: str, conversation_id: str, item_id: str) -> ItemRecord:
        """Find an item.

        Raises:
            NotFoundError: The conversation has no item with this id.
        """
        found = await self._database.for_tenant(tenant_id).records(
            ItemRecord,
            _ITEMS.query + " AND id = %(id)s",
            conversation=conversation_id.replace("\0", ""),
            id=item_id.replace("\0", ""),
        )
        if not found:
            raise NotFoundError(f"No item found with id '{item_id[:80]}'.", param="item_id")
        return found[0]

    async def delete_item(self, tenant_id: str, conversation_id: str, item_id: str) -> None:
        """Delete an item.

        Raises:
            NotFoundError: The conversation has no item with this id.
        """
        await self.get_item(tenant_id, conversation_id, item_id)
        await self._database.for_tenant(tenant_id).row(
            "DELETE FROM conversation_items WHERE tenant_id = %(tenant)s AND id = %(id)s RETURNING id",
            id=item_id,
        )

    async def delete_mentions(self, tenant_id: str, text: str) -> int:
        """Delete the items in which a text stands, in all conversations of a tenant; returns how many."""
        access, deleted = self._database.for_tenant(tenant_id), 0
        found: list[dict[str, str]] = await access.records(
            dict, "SELECT id FROM conversations WHERE tenant_id = %(tenant)s"
        )
        query = (
            "DELETE FROM conversation_items WHERE conversation_id = %(id)s AND strpos(item, %(text)s) > 0 RETURNING id"
        )
        for conversation in found:
            deleted += len(await access.records(dict, query, id=conversation["id"], text=text))
        return deleted

    async def open_response(self, tenant_id: str, conversation_id: str, response_id: str) -> None:
        """Note that a response is about to be queued. Idempotent, also after the response was settled.

        Nothing happens if this tenant has no such conversation.
        """
        await self._database.for_tenant(tenant_id).row(
            """INSERT INTO conversation_responses (response_id, conversation_id)
               SELECT %(response)s, id FROM conversations WHERE tenant_id = %(tenant)s AND id = %(conversation)s
               ON CONFLICT DO NOTHING RETURNING response_id""",
            response=response_id,
            conversation=conversation_id,
        )

    async def forget_response(self, tenant: Viewer, response_id: str) -> None:
        """Forget a response that was not queued."""
        await self._database.for_tenant(tenant).row(
            "DELETE FROM conversation_responses WHERE response_id = %(id)s AND settled_at IS NULL RETURNING response_id",
            id=response_id,
        )

    async def list_open(self, tenant: Viewer, conversation_id: str) -> list[OpenResponse]:
        """List the responses that are not settled, oldest first."""
        return await self._database.for_tenant(tenant).records(
            OpenResponse,
            """SELECT response_id, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_seconds
               FROM conversation_responses WHERE conversation_id = %(conversation)s AND settled_at IS NULL
               ORDER BY created_at""",
            conversation=conversation_id,
        )

    async def settle(
        self, tenant_id: str, conversation_id: str, response_id: str, items: Sequence[tuple[str, Item]]
    ) -> None:
        """Append the items of an ended response, the first time that this is called for it.

        Nothing happens if the conversation was deleted.
        """
        async with self._database.for_tenant(tenant_id).transaction() as connection:
            if not await _lock(connection, tenant_id, conversation_id):
                return
            settled = await connection.execute(
                """INSERT INTO conversation_responses AS r (response_id, conversation_id, settled_at) VALUES (%s, %s, now())
                   ON CONFLICT (response_id) DO UPDATE SET settled_at = now() WHERE r.settled_at IS NULL""",
                [response_id, conversation_id],
            )
            if settled.rowcount:
                await _append(connection, tenant_id, conversation_id, items)


def read_item(record: ItemRecord) -> Item:
    """Parse an item."""
    return {**json.loads(record.item), "id": record.id}


def _read_text(item: Item) -> str | None:
    for part in item.get("content") or ():
        if text := (part.get("text") or "").strip():
            return str(text)[:TITLE_CHARACTERS]
    return None


async def _lock(connection: AsyncConnection[Any], tenant_id: str, conversation_id: str) -> bool:
    """Lock a conversation in the caller's transaction, so that items are appended in order; False if it is not there."""
    query = "SELECT FROM conversations WHERE tenant_id = %s AND id = %s FOR UPDATE"
    return (await connection.execute(query, [tenant_id, conversation_id])).rowcount > 0


async def _append(
    connection: AsyncConnection[Any], tenant_id: str, conversation_id: str, items: Sequence[tuple[str, Item]]
) -> None:
    """Append items behind the last one: their times differ, so that the order by age is theirs."""
    await connection.execute(
        """INSERT INTO conversation_items (id, conversation_id, tenant_id, created_at, item)
           SELECT n.id, %(conversation)s, %(tenant)s, last.at + n.place * interval '1 microsecond', n.item
           FROM unnest(%(ids)s::text[], %(items)s::text[]) WITH ORDINALITY AS n (id, item, place),
                (SELECT greatest(clock_timestamp(), max(created_at)) AS at
                 FROM conversation_items WHERE conversation_id = %(conversation)s) last""",
        {
            "conversation": conversation_id,
            "tenant": tenant_id,
            "ids": [id_ for id_, _ in items],
            "items": [json.dumps(item) for _, item in items],
        },
    )


def _not_found(conversation_id: str, param: str = "conversation_id") -> NotFoundError:
    return NotFoundError(f"No conversation found with id '{conversation_id[:80]}'.", param=param)
