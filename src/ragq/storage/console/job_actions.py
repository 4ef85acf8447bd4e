"""What is done to all jobs of a selection, in the background: the selection, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ragq.errors import NotFoundError
from ragq.models import new_id
from ragq.storage.console.selection import Selection, read_selection, write_selection
from ragq.storage.database import Database

JobAction = Literal["retry", "cancel", "delete"]
LEASE_SECONDS = 30
KEPT_SECONDS = 7 * 86_400

_COLUMNS = "id, tenant_id, action, selection::text, state, total, done, skipped, after, created_at, ended_at"


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """An action on many jobs.

    Attributes:
        tenant_id: Of whoever began it.
        state: `running`, `completed` or `stopped`.
        total: Jobs of the selection when it began.
        skipped: Jobs to which it could not be done; `done` counts the others.
        after: How far the list of jobs is read; None: from the start.
    """

    id: str
    tenant_id: str
    action: JobAction
    selection: str
    state: str
    total: int
    done: int
    skipped: int
    after: str | None
    created_at: datetime
    ended_at: datetime | None

    @property
    def jobs(self) -> Selection:
        """The jobs that it is done to."""
        return read_selection(self.selection)


class JobActions:
    """The actions of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, tenant_id: str, action: JobAction, selection: Selection, *, total: int) -> ActionRecord:
        """Note an action, which the housekeeping then does."""
        created = await self._database.for_tenant(tenant_id).records(
            ActionRecord,
            f"""INSERT INTO job_actions (id, tenant_id, action, selection, total)
                VALUES (%(id)s, %(tenant)s, %(action)s, %(selection)s, %(total)s) RETURNING {_COLUMNS}""",  # noqa: S608
            id=new_id("jobact_"),
            tenant=tenant_id,
            action=action,
            selection=write_selection(selection),
            total=total,
        )
        return created[0]

    async def get(self, tenant_id: str | None, action_id: str) -> ActionRecord:
        """Find an action, of any tenant with None.

        Raises:
            NotFoundError: There is none with this id.
        """
        found = await self._database.for_one_or_all(tenant_id).records(
            ActionRecord,
            f"""SELECT {_COLUMNS} FROM job_actions
                WHERE id = %(id)s AND (tenant_id = %(tenant)s OR %(tenant)s::text IS NULL)""",  # noqa: S608
            id=action_id.replace("\0", ""),
            tenant=tenant_id,
        )
        if not found:
            raise NotFoundError(f"No action found with id '{action_id[:80]}'.", param="action_id")
        return found[0]

    async def claim(self) -> ActionRecord | None:
        """Take the oldest action that runs and that no process works on; it is this process's for LEASE_SECONDS."""
        found = await self._database.for_all().records(
            ActionRecord,
            f"""UPDATE job_actions SET leased_until = now() + interval '{LEASE_SECONDS} s'
                WHERE id = (SELECT id FROM job_actions WHERE state = 'running' AND leased_until < now()
                            ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING {_COLUMNS}""",  # noqa: S608
        )
        return found[0] if found else None

    async def advance(self, action_id: str, before: str | None, *, done: int, skipped: int, after: str | None) -> bool:
        """Note what was done since, and how far it is: None at the end. Renews the lease.

        Returns:
            False if it was stopped, or is no longer at `before`, because another process took it over.
        """
        row = await self._database.for_all().row(
            f"""UPDATE job_actions
                SET done = done + %(done)s, skipped = skipped + %(skipped)s, after = %(after)s,
                    leased_until = now() + interval '{LEASE_SECONDS} s',
                    state = CASE WHEN state = 'running' AND %(after)s::text IS NULL THEN 'completed' ELSE state END,
                    ended_at = CASE WHEN %(after)s::text IS NULL THEN coalesce(ended_at, now()) ELSE ended_at END
                WHERE id = %(id)s AND after IS NOT DISTINCT FROM %(before)s RETURNING state""",  # noqa: S608  (a constant)
            id=action_id,
            before=before,
            done=done,
            skipped=skipped,
            after=after,
        )
        return row is not None and row["state"] == "running"

    async def stop(self, tenant_id: str | None, action_id: str) -> ActionRecord:
        """Let an action end after the jobs that it has at hand; one that has ended stays as it is.

        Raises:
            NotFoundError: There is none with this id.
        """
        await self._database.for_one_or_all(tenant_id).row(
            """UPDATE job_actions SET state = 'stopped', ended_at = now()
               WHERE id = %(id)s AND (tenant_id = %(tenant)s OR %(tenant)s::text IS NULL) AND state = 'running'
               RETURNING id""",
            id=action_id.replace("\0", ""),
            tenant=tenant_id,
        )
        return await self.get(tenant_id, action_id)

    async def expire(self) -> None:
        """Delete actions that ended a week ago."""
        query = f"DELETE FROM job_actions WHERE ended_at < now() - interval '{KEPT_SECONDS} s' RETURNING id"  # noqa: S608
        await self._database.for_all().row(query)
