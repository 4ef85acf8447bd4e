"""The documents of a vector store, as MCP clients see them."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from ragq.errors import UnavailableError
from ragq.mcp.route import Reach
from ragq.storage.paging import Page
from ragq.storage.store_files import StoreFileRecord

MAX_CHARACTERS = 100_000  # of one document in an answer, about 25,000 tokens


class Document(TypedDict):
    """A document of the store."""

    id: str
    title: str
    url: str
    status: str


class DocumentText(TypedDict):
    """A document's text, and what is known of it."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, Any]


class Documents:
    """The documents of one store."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._context = reach.context

    async def find_store(self, *, to_change: bool = False) -> str:
        """The store's id.

        Raises:
            ForbiddenError: It is another tenant's, and was to be changed.
            NotFoundError: It does not exist.
            InvalidRequestError: It has expired.
        """
        return await self._context.stores.resolve(
            self._reach.tenant, self._reach.store_id, to_use=True, to_change=to_change
        )

    def url_of(self, file_id: str) -> str:
        """The address that downloads a document."""
        return f"{self._reach.base_url}/v1/files/{file_id}/content"

    def render(self, record: StoreFileRecord) -> Document:
        return {
            "id": record.file_id,
            "title": record.filename,
            "url": self.url_of(record.file_id),
            "status": record.status,
        }

    async def list_page(self, page: Page) -> tuple[list[Document], bool]:
        """List documents, newest first, and whether there are more."""
        store_id = await self.find_store()
        records = await self._context.store_files.list_files(self._reach.tenant, store_id, page, None)
        return [self.render(record) for record in records[: page.limit]], len(records) > page.limit

    async def get(self, file_id: str) -> Document:
        record = await self._context.store_files.get(self._reach.tenant, await self.find_store(), file_id)
        return self.render(record)

    async def read(self, file_id: str) -> DocumentText:
        """Read a document's text, as far as an answer may be long.

        Raises:
            NotFoundError: The store does not have this document.
            UnavailableError: The document has no text yet, or none can be read.
        """
        tenant, store_id = self._reach.tenant, await self.find_store()
        record = await self._context.store_files.get(tenant, store_id, file_id)
        excerpt = await self._context.store_files.get_excerpt(tenant, store_id, file_id, characters=MAX_CHARACTERS)
        if excerpt is None:
            reason = record.error_message or "it is being read. Try again in a moment."
            raise UnavailableError(f"'{record.filename}' has no text yet: {reason}")
        text, characters = excerpt.text, excerpt.characters
        if characters > len(text):
            text += (
                f"\n\n[Cut here: these are the first {len(text)} of {characters} characters. "
                f"`ask` and `search` know all of them; {self.url_of(file_id)} has the whole file.]"
            )
        return {
            "id": file_id,
            "title": record.filename,
            "text": text,
            "url": self.url_of(file_id),
            "metadata": {**record.attributes, "bytes": record.bytes, "characters": characters},
        }
