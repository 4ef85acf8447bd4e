"""The connections that everything in a process shares."""

from __future__ import annotations

from dataclasses import dataclass

from ragq.client.rq_client import JobQueue
from ragq.settings import Settings
from ragq.storage.archive import Archive, StoredChats
from ragq.storage.batches import Batches
from ragq.storage.blobs import BlobStore
from ragq.storage.console.job_actions import JobActions
from ragq.storage.console.jobs import Jobs
from ragq.storage.console.poison import PoisonFiles
from ragq.storage.conversations import Conversations
from ragq.storage.database import Database
from ragq.storage.feedback import Feedback
from ragq.storage.file_batches import FileBatches
from ragq.storage.files import Files
from ragq.storage.ingests import Ingests
from ragq.storage.store_files import StoreFiles
from ragq.storage.tenancy.api_keys import ApiKeys
from ragq.storage.tenancy.audit_log import AuditLog
from ragq.storage.tenancy.limits import LimitStore
from ragq.storage.tenancy.sessions import Sessions
from ragq.storage.tenancy.shares import StoreShares
from ragq.storage.tenancy.tenants import Tenants
from ragq.storage.tenancy.usage import UsageStore
from ragq.storage.uploads import Uploads
from ragq.storage.vector_stores import Stores
from ragq.storage.webhooks import Webhooks


@dataclass(kw_only=True)
class Context:
    """The queue, the blob store, and a client for each group of PostgreSQL tables.

    Attributes:
        not_ready: The reason why the process cannot serve yet; None when it can.
    """

    settings: Settings
    queue: JobQueue
    database: Database
    blobs: BlobStore
    not_ready: str | None = None

    def __post_init__(self) -> None:
        database = self.database
        self.files = Files(database)
        self.uploads = Uploads(database)
        self.stores = Stores(database)
        self.store_files = StoreFiles(database)
        self.file_batches = FileBatches(database)
        self.ingests = Ingests(database)
        self.archive = Archive(database)
        self.jobs = Jobs(database)
        self.job_actions = JobActions(database)
        self.poison = PoisonFiles(database)
        self.chats = StoredChats(database)
        self.feedback = Feedback(database)
        self.conversations = Conversations(database)
        self.batches = Batches(database)
        self.webhooks = Webhooks(database)
        self.tenants = Tenants(database)
        self.api_keys = ApiKeys(database)
        self.sessions = Sessions(database, self.settings.oidc_issuer or "")
        self.limits = LimitStore(database)
        self.usage = UsageStore(database)
        self.audit_log = AuditLog(database)
        self.store_shares = StoreShares(database)
