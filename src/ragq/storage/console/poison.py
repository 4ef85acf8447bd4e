"""Poison, as operators see it: the bytes that nothing reads again, and the files that have them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ragq.storage.database import Database

MOST = 1000
NAMES = 10  # of the files with the same bytes


@dataclass(frozen=True, slots=True)
class PoisonRecord:
    """Bytes that are not read again, and names of files that have them."""

    sha256: str
    code: str
    reason: str
    created_at: datetime
    filenames: list[str]


class PoisonFiles:
    """Lists poison."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_files(self, tenant_id: str | None) -> list[PoisonRecord]:
        """List the latest poison of a tenant's files; with None, all."""
        return await self._database.for_one_or_all(tenant_id).records(
            PoisonRecord,
            f"""SELECT p.sha256, p.code, p.reason, p.created_at, coalesce(named.filenames, '{{}}') AS filenames
                FROM poison p LEFT JOIN LATERAL (
                    SELECT array_agg(filename) AS filenames FROM (
                        SELECT DISTINCT f.filename FROM files f
                        WHERE f.sha256 = p.sha256 AND (f.tenant_id = %(tenant)s OR %(tenant)s::text IS NULL)
                        ORDER BY f.filename LIMIT {NAMES}) first_files) named ON true
                WHERE named.filenames IS NOT NULL OR %(tenant)s::text IS NULL
                ORDER BY p.created_at DESC LIMIT {MOST}""",  # noqa: S608  (constants)
            tenant=tenant_id,
        )
