"""What people say of answers: a rating and a comment for each, kept as long as the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ragq.accounts.views import Viewer
from ragq.errors import NotFoundError
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.tenancy.visibility import see_own

Rating = Literal["up", "down"]

_CONDITIONS = {
    "rating": "rating = %(rating)s",
    "since": "feedback.created_at >= to_timestamp(%(since)s)",
    "until": "feedback.created_at < to_timestamp(%(until)s)",
}


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """What was said of the answer with this id.

    Attributes:
        key_id: The key that rated it; empty for `RAGQ_API_KEY`.
    """

    id: str
    key_id: str
    created_at: datetime
    rating: Rating
    comment: str | None


@dataclass(frozen=True, slots=True)
class RatedAnswer(FeedbackRecord):
    """Feedback with its answer's job, as JSON."""

    job: str


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Which feedback to list; times in seconds since 1970, `until` exclusive. None: any."""

    rating: Rating | None = None
    since: int | None = None
    until: int | None = None


class Feedback:
    """The feedback of tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, tenant: Viewer, response_id: str, *, rating: Rating, comment: str | None) -> FeedbackRecord:
        """Store feedback on an archived answer, in place of what was said before.

        Raises:
            NotFoundError: The answer was deleted meanwhile.
        """
        # FOR SHARE waits for a deletion that is on its way, and a later one waits for this.
        found = await self._database.for_tenant(tenant).records(
            FeedbackRecord,
            f"""INSERT INTO feedback (id, tenant_id, key_id, rating, comment)
                SELECT id, tenant_id, %(view_key)s, %(rating)s, %(comment)s FROM responses
                WHERE id = %(id)s AND tenant_id = %(tenant)s AND job IS NOT NULL{see_own(tenant)} FOR SHARE
                ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id, created_at = excluded.created_at,
                                               rating = excluded.rating, comment = excluded.comment
                RETURNING id, key_id, created_at, rating, comment""",  # noqa: S608
            id=response_id,
            rating=rating,
            comment=comment,
        )
        if not found:
            raise NotFoundError(f"No response found with id '{response_id[:80]}'.", param="response_id")
        return found[0]

    async def find(self, tenant: Viewer, response_id: str) -> FeedbackRecord | None:
        """Read the feedback on an answer; None if there is none."""
        found = await self._database.for_tenant(tenant).records(
            FeedbackRecord,
            """SELECT id, key_id, created_at, rating, comment FROM feedback
               WHERE id = %(id)s AND tenant_id = %(tenant)s""",
            id=response_id,
        )
        return found[0] if found else None

    async def delete(self, tenant: Viewer, response_id: str) -> None:
        """Take back the feedback on an answer, if there is any."""
        query = "DELETE FROM feedback WHERE id = %(id)s AND tenant_id = %(tenant)s RETURNING id"
        await self._database.for_tenant(tenant).row(query, id=response_id)

    async def list_rated(self, tenant_id: str, page: Page, wanted: FeedbackFilter) -> list[RatedAnswer]:
        """List feedback by age, with its answers; one more than `page.limit` if there are more."""
        scope = "feedback.tenant_id = %(tenant)s"
        query = f"""SELECT feedback.id, feedback.key_id, feedback.created_at, rating, comment, job
                    FROM feedback JOIN responses USING (id) WHERE {scope}"""  # noqa: S608
        given = {name: getattr(wanted, name) for name in _CONDITIONS if getattr(wanted, name) is not None}
        return await read_page(
            self._database.for_tenant(tenant_id),
            RatedAnswer,
            Listed("feedback", query, scope),
            page,
            condition="".join(f" AND {_CONDITIONS[name]}" for name in given),
            **given,
        )
