"""The queue's promise as a plain Python model: each method is a step of the protocol and returns the expected reply."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

FINAL = {"finished", "failed", "canceled"}


@dataclass(slots=True)
class ModelJob:
    """A job; `lease` is "", "live" or "expired", `results` is the number of visible results."""

    name: str
    fingerprint: str
    archive: bool
    status: str = "queued"
    attempt: int = 0
    lease: str = ""
    due: bool = False
    late: bool = False
    alone: bool = False
    tries: int = 0
    deaths: int = 0
    deaths_alone: int = 0
    results: int = 0
    archived: bool = False

    @property
    def ended(self) -> bool:
        return self.status in FINAL

    @property
    def stays(self) -> bool:
        return not self.ended or (self.archive and not self.archived)


def lane_of(name: str) -> str:
    return name.partition("@")[0]


class QueueModel:
    """Jobs, their lists, and the order of the lists in their lanes."""

    def __init__(self, quarantine_deaths: int) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.lists: dict[str, list[str]] = defaultdict(list)
        self.rings: dict[str, list[str]] = defaultdict(list)
        self._drainer = ""
        self._quarantine_deaths = quarantine_deaths

    def waiting(self) -> dict[str, list[str]]:
        return {name: ids for name, ids in self.lists.items() if ids}

    def turns(self) -> dict[str, list[str]]:
        return {lane: names for lane, names in self.rings.items() if names}

    def ids(self, *statuses: str) -> list[str]:
        return sorted(id_ for id_, job in self.jobs.items() if job.status in statuses)

    def run_out(self, what: str, ids: set[str]) -> set[str]:
        """Expire the leases, delays or deadlines of these jobs; returns the jobs that had one."""
        statuses = {"leases": ["started"], "delayed": ["scheduled"], "deadlines": ["queued", "started", "scheduled"]}
        found = ids.intersection(self.ids(*statuses[what]))
        for id_ in found:
            job = self.jobs[id_]
            job.lease = "expired" if what == "leases" else job.lease
            job.due |= what == "delayed"
            job.late |= what == "deadlines"
        return found

    def enqueue(self, id_: str, name: str, fingerprint: str, *, archive: bool) -> tuple[bool, str]:
        if id_ in self.jobs:
            return False, self.jobs[id_].fingerprint
        self.jobs[id_] = ModelJob(name, fingerprint, archive)
        self._push(id_, name)
        return True, fingerprint

    def claim(self, worker: str, lanes: list[tuple[str, int]], *, in_flight: int) -> tuple[list[str], bool]:
        self._wake_due()
        taken: list[str] = []
        if self.rings["queries.solo"]:
            if in_flight:
                self._drainer = self._drainer or worker
                if self._drainer == worker:
                    return [], True
            else:
                self._drainer = ""
                if self._take("queries.solo", taken, alone=True):
                    return taken, False
        for lane, most in lanes:
            for _ in range(most):
                if not self._take(lane, taken, alone=False):
                    break
        return taken, False

    def heartbeat(self, id_: str, attempt: int) -> bool:
        owned = self._owns(id_, attempt)
        if owned:
            self.jobs[id_].lease = "live"
        return owned

    def commit(self, id_: str, attempt: int, status: str) -> bool:
        if self._owns(id_, attempt):
            self._finish(id_, status, results=1)
            return True
        job = self.jobs.get(id_)
        return job is not None and (job.attempt, job.status) == (attempt, status)

    def hand_back(self, id_: str, attempt: int, *, later: bool, charge: bool) -> bool:
        if not self._owns(id_, attempt):
            return False
        job = self.jobs[id_]
        job.lease, job.tries = "", job.tries + charge
        if later:
            job.status, job.due = "scheduled", False
        else:
            self._push(id_, job.name, front=True)
        return True

    def cancel(self, id_: str) -> bool:
        if id_ in self.jobs and not self.jobs[id_].ended:
            self._finish(id_, "canceled", results=0)
        return id_ in self.jobs

    def delete(self, id_: str) -> bool:
        self._unlist(id_)
        return self.jobs.pop(id_, None) is not None

    def reap(self) -> tuple[list[str], int, list[str]]:
        dead = [id_ for id_ in self.ids("started") if self.jobs[id_].lease == "expired"]
        for id_ in dead:
            job = self.jobs[id_]
            job.lease, job.deaths, job.deaths_alone = "", job.deaths + 1, job.deaths_alone + job.alone
            suspect = job.deaths >= 2 and job.deaths_alone < self._quarantine_deaths
            self._push(id_, "queries.solo" + job.name[len(lane_of(job.name)) :] if suspect else job.name, front=True)
        delayed = self._wake_due()
        late = [id_ for id_ in self.ids("queued", "scheduled") if self.jobs[id_].late]
        for id_ in late:
            self._finish(id_, "failed", results=1)
        for job in self.jobs.values():
            job.late = False
        return dead, delayed, late

    def unarchived(self) -> set[str]:
        return {id_ for id_, job in self.jobs.items() if job.ended and job.stays}

    def _push(self, id_: str, name: str, *, front: bool = False) -> None:
        self.jobs[id_].status = "queued"
        self.lists[name].insert(0 if front else len(self.lists[name]), id_)
        self._join(name)

    def _join(self, name: str) -> None:
        if name not in self.rings[lane_of(name)]:
            self.rings[lane_of(name)].append(name)

    def _unlist(self, id_: str) -> None:
        for ids in self.lists.values():
            if id_ in ids:
                ids.remove(id_)

    def _wake_due(self) -> int:
        due = [id_ for id_ in self.ids("scheduled") if self.jobs[id_].due]
        for id_ in due:
            self._push(id_, self.jobs[id_].name)
        return len(due)

    def _take(self, lane: str, taken: list[str], *, alone: bool) -> bool:
        while self.rings[lane]:
            name = self.rings[lane].pop(0)
            ids = self.lists[name]
            if not ids:
                continue
            job = self.jobs[ids[0]]
            job.status, job.attempt, job.lease, job.alone = "started", job.attempt + 1, "live", alone
            taken.append(ids.pop(0))
            if ids:
                self._join(name)
            return True
        return False

    def _owns(self, id_: str, attempt: int) -> bool:
        job = self.jobs.get(id_)
        if not job or job.attempt != attempt:
            return False
        if job.status == "queued":
            self._unlist(id_)
            job.status = "started"
        return job.status == "started"

    def _finish(self, id_: str, status: str, *, results: int) -> None:
        self._unlist(id_)
        job = self.jobs[id_]
        job.status, job.lease, job.late, job.results = status, "", False, results
