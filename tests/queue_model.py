"""The queue's promise as a plain Python model: each method is a step of the protocol and returns the expected reply."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

FINAL = {"finished", "failed", "canceled"}
TURN, WAITED = 10_000, 200_000  # a turn of a tenant of weight 1, and the most that a tenant may be behind


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


def suffix_of(name: str) -> str:
    return name[len(lane_of(name)) :]


@dataclass(slots=True)
class Pool:
    """Lanes that share slots: the pool's time, and the next turns of names that wait and of all tenants."""

    lanes: list[str]
    time: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    begun: bool = False  # a tenant has waited for another

    def first(self, lane: str) -> tuple[int, int, str] | None:
        """The turn of a lane's first name, the lane's rank, and the name."""
        found = [(turn, name) for name, turn in self.waiting.items() if lane_of(name) == lane]
        return (max(self.time, min(found)[0]), self.lanes.index(lane), min(found)[1]) if found else None

    @property
    def earliest(self) -> int:
        return min(found[0] for lane in self.lanes if (found := self.first(lane)))

    def join(self, name: str) -> None:
        self.waiting.setdefault(name, max(self.time, self.turns.get(suffix_of(name), 0)))

    def move(self, suffix: str, turn: int, earliest: int, weight: float) -> None:
        following = turn + round(TURN / weight)
        if all(suffix_of(name) == suffix for name in self.waiting):
            if self.begun:
                self.time = following
            return
        self.begun, self.time = True, max(self.time, earliest, turn - WAITED)
        self.turns[suffix] = following
        self.waiting |= {name: self.turns[suffix] for name in self.waiting if suffix_of(name) == suffix}


class QueueModel:
    """Jobs, their lists, and the order of the lists in their lanes.

    Attributes:
        weights: By the suffix of a tenant's names, as `limits`: the most jobs that run.
    """

    def __init__(self, quarantine_deaths: int, weights: dict[str, float], limits: dict[str, int]) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.lists: dict[str, list[str]] = defaultdict(list)
        self.weights, self.limits = weights, limits
        solo = Pool(["queries.solo"])
        shared = Pool(["queries.priority", "queries", "queries.flex"])
        self._pools = {lane: pool for pool in (solo, shared) for lane in pool.lanes}
        self._drainer = ""
        self._quarantine_deaths = quarantine_deaths

    def waiting(self) -> dict[str, list[str]]:
        return {name: ids for name, ids in self.lists.items() if ids}

    def turns(self) -> dict[str, list[str]]:
        """The names that wait, by lane, next first."""
        found: dict[str, list[str]] = defaultdict(list)
        for lane, pool in self._pools.items():
            for name in sorted(pool.waiting, key=lambda name: (pool.waiting[name], name)):
                if lane_of(name) == lane:
                    found[lane].append(name)
        return dict(found)

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
        if self._pools["queries.solo"].waiting:
            if in_flight:
                self._drainer = self._drainer or worker
                if self._drainer == worker:
                    return [], True
            else:
                self._drainer = ""
                if self._take({"queries.solo": 1}, taken, alone=True):
                    return taken, False
        room = dict(lanes)
        while name := self._take(room, taken, alone=False):
            places = room[lane_of(name)]
            room = {lane: most - (most >= places) for lane, most in room.items()}
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
        job.lease, job.tries, job.status = "", job.tries + charge, "scheduled"
        self._wake(job.name)
        if later:
            job.due = False
        else:
            self._push(id_, job.name, front=True)
        return True

    def cancel(self, id_: str) -> bool:
        if id_ in self.jobs and not self.jobs[id_].ended:
            self._finish(id_, "canceled", results=0)
        return id_ in self.jobs

    def delete(self, id_: str) -> bool:
        self._unlist(id_)
        job = self.jobs.pop(id_, None)
        if job:
            self._wake(job.name)
        return job is not None

    def reap(self) -> tuple[list[str], int, list[str]]:
        dead = [id_ for id_ in self.ids("started") if self.jobs[id_].lease == "expired"]
        for id_ in dead:
            job = self.jobs[id_]
            job.lease, job.deaths, job.deaths_alone = "", job.deaths + 1, job.deaths_alone + job.alone
            job.status = "queued"
            self._wake(job.name)
            suspect = job.deaths >= 2 and job.deaths_alone < self._quarantine_deaths
            self._push(id_, "queries.solo" + suffix_of(job.name) if suspect else job.name, front=True)
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
        self._pools[lane_of(name)].join(name)

    def _wake(self, name: str) -> None:
        """A job of this name no longer runs: those that waited for a place of the tenant take turns again."""
        if suffix_of(name) in self.limits:
            for other, ids in self.lists.items():
                if ids and suffix_of(other) == suffix_of(name):
                    self._join(other)

    def _is_full(self, suffix: str) -> bool:
        running = [job for job in self.jobs.values() if job.status == "started" and suffix_of(job.name) == suffix]
        return len(running) >= self.limits.get(suffix, 1000)

    def _unlist(self, id_: str) -> None:
        for ids in self.lists.values():
            if id_ in ids:
                ids.remove(id_)

    def _wake_due(self) -> int:
        due = [id_ for id_ in self.ids("scheduled") if self.jobs[id_].due]
        for id_ in due:
            self._push(id_, self.jobs[id_].name)
        return len(due)

    def _take(self, room: dict[str, int], taken: list[str], *, alone: bool) -> str:
        """Claim the job that is next in the lanes with room; returns the name of its list, or ""."""
        pool = self._pools[next(iter(room))]
        while firsts := [found for lane, most in room.items() if most > 0 and (found := pool.first(lane))]:
            turn, _, name = min(firsts)
            ids = self.lists[name]
            if not ids or self._is_full(suffix_of(name)):
                del pool.waiting[name]
                continue
            job = self.jobs[ids[0]]
            job.status, job.attempt, job.lease, job.alone = "started", job.attempt + 1, "live", alone
            taken.append(ids.pop(0))
            earliest = pool.earliest
            if not ids:
                del pool.waiting[name]
            pool.move(suffix_of(name), turn, earliest, self.weights.get(suffix_of(name), 1))
            return name
        return ""

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
        was_started = job.status == "started"
        job.status, job.lease, job.late, job.results = status, "", False, results
        if was_started:
            self._wake(job.name)
