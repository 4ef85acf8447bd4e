"""The connections of an API process, as what runs in it shares them."""

from __future__ import annotations

from dataclasses import dataclass

from ragq.client.rq_client import JobQueue
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.files import Files
from ragq.storage.ingests import Ingests
from ragq.storage.store_files import StoreFiles
from ragq.storage.vector_stores import Stores


@dataclass(slots=True)
class Context:
    """The clients of an API process.

    Attributes:
        not_ready: Why the process cannot serve yet; None when it can.
    """

    settings: Settings
    queue: JobQueue
    database: Database
    files: Files
    stores: Stores
    store_files: StoreFiles
    ingests: Ingests
    blobs: BlobStore
    archive: Archive
    not_ready: str | None = "starting"
