"""OpenAI's conversations: items that ragq keeps, as the history of responses."""

from __future__ import annotations

from fastapi import APIRouter

from ragq.accounts.views import TenantView
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.queues.conversations import settle_ended
from ragq.queues.history import resolve_references
from ragq.routes.context import ApiContext, ContextDependency, Include, PageDependency, Tenant, listing
from ragq.schemas.conversations import (
    Conversation,
    ConversationCreate,
    ConversationItem,
    ConversationUpdate,
    ItemsCreate,
    ListedConversation,
    show_item,
    write_items,
)
from ragq.schemas.messages import InputItem
from ragq.schemas.objects import Deleted, Listing
from ragq.storage.conversations import ConversationRecord, Item, read_item
from ragq.storage.paging import Page

router = APIRouter(prefix="/v1/conversations", route_class=CheckedRoute)


@router.post("", responses=refusals(404))
async def create_conversation(
    context: ContextDependency, tenant: Tenant, body: ConversationCreate | None = None
) -> Conversation:
    """Create a conversation with its first items."""
    body = body or ConversationCreate()
    items = await _write(context, tenant, [*(body.items or [])])
    return _render(await context.conversations.create(tenant, metadata=body.metadata or {}, items=items))


@router.get("")
async def list_conversations(
    page: PageDependency, context: ContextDependency, tenant: Tenant
) -> Listing[ListedConversation]:
    """List conversations by age, without their items."""
    records = await context.conversations.list_conversations(tenant, page)
    shown: list[ListedConversation] = [{**_render(record), "title": record.title} for record in records]
    return listing(shown, page)


@router.get("/{conversation_id}")
async def get_conversation(conversation_id: str, context: ContextDependency, tenant: Tenant) -> Conversation:
    """Show a conversation, without its items."""
    return _render(await context.conversations.get(tenant, conversation_id))


@router.post("/{conversation_id}")
async def update_conversation(
    conversation_id: str, body: ConversationUpdate, context: ContextDependency, tenant: Tenant
) -> Conversation:
    """Replace the metadata of a conversation."""
    return _render(await context.conversations.update(tenant, conversation_id, body.metadata or {}))


@router.delete("/{conversation_id}")
async def delete_conversation(conversation_id: str, context: ContextDependency, tenant: Tenant) -> Deleted:
    """Delete a conversation and its items. Its responses are kept."""
    await context.conversations.delete(tenant, conversation_id)
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


@router.post("/{conversation_id}/items")
async def create_items(
    conversation_id: str, body: ItemsCreate, include: Include, context: ContextDependency, tenant: Tenant
) -> Listing[ConversationItem]:
    """Append items to a conversation."""
    await context.conversations.get(tenant, conversation_id)
    items = await _write(context, tenant, [*body.items])
    await settle_ended(context, tenant, conversation_id)
    await context.conversations.add_items(tenant.id, conversation_id, items)
    shown = [_show(context, {**item, "id": id_}, include) for id_, item in items]
    return listing(shown, Page(limit=len(shown)))


@router.get("/{conversation_id}/items")
async def list_items(
    conversation_id: str, page: PageDependency, include: Include, context: ContextDependency, tenant: Tenant
) -> Listing[ConversationItem]:
    """List the items of a conversation."""
    await _look(context, tenant, conversation_id)
    records = await context.conversations.list_items(tenant.id, conversation_id, page)
    return listing([_show(context, read_item(record), include) for record in records], page)


@router.get("/{conversation_id}/items/{item_id}")
async def get_item(
    conversation_id: str, item_id: str, include: Include, context: ContextDependency, tenant: Tenant
) -> ConversationItem:
    """Show an item of a conversation."""
    await _look(context, tenant, conversation_id)
    return _show(context, read_item(await context.conversations.get_item(tenant.id, conversation_id, item_id)), include)


@router.delete("/{conversation_id}/items/{item_id}")
async def delete_item(conversation_id: str, item_id: str, context: ContextDependency, tenant: Tenant) -> Conversation:
    """Delete an item; shows the conversation."""
    conversation = await _look(context, tenant, conversation_id)
    await context.conversations.delete_item(tenant.id, conversation_id, item_id)
    return _render(conversation)


async def _look(context: ApiContext, tenant: TenantView, conversation_id: str) -> ConversationRecord:
    """Find a conversation, with the items of all responses that have ended.

    Raises:
        NotFoundError: This tenant has no conversation with this id.
    """
    conversation = await context.conversations.get(tenant, conversation_id)
    await settle_ended(context, tenant, conversation_id)
    return conversation


async def _write(context: ApiContext, tenant: TenantView, items: list[InputItem]) -> list[tuple[str, Item]]:
    resolved = await resolve_references(items, context, tenant, name="items")
    assert isinstance(resolved, list)
    return write_items(resolved)


def _show(context: ApiContext, item: Item, include: list[str]) -> ConversationItem:
    return show_item(item, include, context.settings.page_url)


def _render(record: ConversationRecord) -> Conversation:
    return {
        "id": record.id,
        "object": "conversation",
        "created_at": int(record.created_at.timestamp()),
        "metadata": record.metadata,
    }
