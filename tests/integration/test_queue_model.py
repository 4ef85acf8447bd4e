"""Any order of steps, stray and repeated ones too, against the model of `tests.queue_model`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import redis
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from ragq.client.job import Outcome, list_name
from ragq.client.rq_client import JobQueue
from ragq.models import Lane, Question, QueueName
from ragq.records import QueryArguments
from ragq.settings import Settings
from tests.queue_model import FINAL, QueueModel, lane_of
from tests.queue_steps import BAD, DONE, new_job
from tests.servers import Valkey

IDS = st.sampled_from("abcdefgh")
LANES = st.sampled_from([Lane.DEFAULT, Lane.FLEX])
TENANTS = st.sampled_from(["default", "acme", "tiny"])
SHARES = {"acme": (3.0, None), "tiny": (1.0, 1)}  # weight, and most running jobs
NAMES = [f"queries{lane}{tenant}" for tenant in ("", "@acme", "@tiny") for lane in ("", ".flex", ".solo")]
ROOMS = st.sampled_from(
    [
        [("queries", 1)],
        [("queries", 3), ("queries.flex", 3)],
        [("queries", 0), ("queries.flex", 2)],
        [("queries.flex", 1)],
    ]
)
ACTIONS = st.sampled_from(["heartbeat", "finished", "failed", "release", "retry", "wait"])
RARELY = st.sampled_from([False, False, False, True])
STRAY = st.sampled_from([0, 0, 0, 0, -1, 1])  # added to the attempt: mostly none, or one too old or too new

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "enqueue": st.tuples(IDS, LANES, TENANTS, st.sampled_from("xy"), st.booleans()),
    "claim": st.tuples(st.sampled_from(["w1", "w2", "w3"]), ROOMS, st.booleans(), RARELY),
    "act": st.tuples(st.integers(0, 4), STRAY, ACTIONS, RARELY),
    "time_passes": st.tuples(st.sampled_from(["leases", "delayed"]), st.sets(IDS, min_size=5)),
    "deadlines_pass": st.tuples(st.sets(IDS, min_size=1, max_size=2)),
    "reap": st.tuples(st.booleans()),
    "cancel": st.tuples(IDS),
    "delete": st.tuples(IDS),
    "archive": st.tuples(st.integers(1, 3)),
}
# Not a rule each: Hypothesis would leave out half of the rules in each run.
WEIGHTED = (
    2 * ["enqueue"]
    + 8 * ["claim"]
    + 5 * ["act", "time_passes", "reap"]
    + ["deadlines_pass", "cancel", "delete", "archive"]
)
STEPS = st.sampled_from(WEIGHTED).flatmap(lambda name: st.tuples(st.just(name), ARGUMENTS[name]))
LONG_AGO = 1
LARGE = "ace"  # jobs whose bytes are counted
COUNTED_BYTES = 4096


@dataclass
class Seen:
    """All that Valkey keeps of the queue, as read in one transaction."""

    lists: dict[str, list[str]]
    rings: dict[str, list[str]]
    leases: set[str]
    wip: set[str]
    delayed: set[str]
    scheduled: set[str]
    deadlines: set[str]
    unarchived: set[str]
    bytes: dict[str, str]
    queued_bytes: dict[str, int]
    hashes: dict[str, dict[str, str]]
    results: dict[str, int]
    ttls: dict[str, int]


def texts(values: list[bytes]) -> list[str]:
    return [value.decode() for value in values]


def read_keys(connection: redis.Redis, ids: list[str]) -> list[Any]:
    """Read all keys of the queue at one moment."""
    pipeline = connection.pipeline(transaction=True)
    for name in NAMES:
        pipeline.lrange(f"ragq:queue:{name}", 0, -1)
        pipeline.zrange(f"ragq:ring:{name}", 0, -1)
        pipeline.zrange(f"ragq:wip:{name}", 0, -1)
        pipeline.zrange(f"ragq:scheduled:{name}", 0, -1)
    for key in ("leases", "delayed", "deadlines", "unarchived"):
        pipeline.zrange(f"ragq:{key}", 0, -1)
    pipeline.hgetall("ragq:bytes")
    pipeline.hgetall("ragq:queued_bytes")
    for id_ in ids:
        pipeline.hgetall(f"ragq:job:{id_}")
        pipeline.xlen(f"ragq:results:{id_}")
        pipeline.ttl(f"ragq:job:{id_}")
    answers: list[Any] = pipeline.execute()
    return answers


def look(connection: redis.Redis, ids: list[str]) -> Seen:
    answers = read_keys(connection, ids)
    lists, rings, wip, scheduled = (
        {name: texts(found) for name, found in zip(NAMES, answers[part : 4 * len(NAMES) : 4], strict=True) if found}
        for part in range(4)
    )
    leases, delayed, deadlines, unarchived = (set(texts(found)) for found in answers[4 * len(NAMES) :][:4])
    held, sums = answers[4 * len(NAMES) + 4 :][:2]
    jobs = answers[4 * len(NAMES) + 6 :]
    return Seen(
        lists,
        rings,
        leases,
        {entry for entries in wip.values() for entry in entries},
        delayed,
        {entry for entries in scheduled.values() for entry in entries},
        deadlines,
        unarchived,
        {id_.decode(): entry.decode() for id_, entry in held.items()},
        {lane.decode(): int(total) for lane, total in sums.items() if int(total)},
        {
            id_: {field.decode(): value.decode(errors="replace") for field, value in fields.items()}
            for id_, fields in zip(ids, jobs[::3], strict=True)
        },
        dict(zip(ids, jobs[1::3], strict=True)),
        dict(zip(ids, jobs[2::3], strict=True)),
    )


def check_places(seen: Seen) -> None:
    """Every job is in one list, or leased, or delayed, or ended; a list that is not empty has its turn, unless a job
    runs whose end gives its tenant a place.
    """
    places = Counter(id_ for ids in seen.lists.values() for id_ in ids)
    places.update(seen.leases)
    places.update(seen.delayed)
    places.update(id_ for id_, fields in seen.hashes.items() if fields["status"] in FINAL)
    assert places == Counter(list(seen.hashes))
    started = {id_: fields["attempt"] for id_, fields in seen.hashes.items() if fields["status"] == "started"}
    assert seen.leases == set(started)
    assert seen.wip == {f"{id_}:{attempt}" for id_, attempt in started.items()}
    assert seen.scheduled == seen.delayed
    waiting = {name for name in seen.lists if name not in seen.rings.get(lane_of(name), [])}
    assert waiting <= {name for name in NAMES if name.endswith("@tiny")}
    assert not waiting or any(seen.hashes[id_]["origin"].endswith("@tiny") for id_ in started)


def check_bytes(seen: Seen) -> None:
    """The bytes of exactly the large jobs that have not ended are counted, by their lists."""
    sums = Counter[str]()
    for id_, entry in seen.bytes.items():
        fields, (size, name) = seen.hashes[id_], entry.split(":")
        assert (int(size), name) == (len(fields["data"]) + len(fields["request"]), fields["origin"])
        sums[name] += int(size)
    unfinished = {id_ for id_, fields in seen.hashes.items() if fields["status"] not in FINAL}
    assert set(seen.bytes) == unfinished & set(LARGE)
    assert seen.queued_bytes == dict(sums)


def check_progress(before: dict[str, dict[str, str]], hashes: dict[str, dict[str, str]]) -> None:
    """No attempt goes down or skips one, and what has ended stays as it is."""
    for id_, then in before.items():
        now = hashes[id_]
        is_claim = now["status"] == "started" and then["status"] in {"queued", "scheduled"}
        assert int(now["attempt"]) - int(then["attempt"]) in ({0, 1} if is_claim else {0})
        assert then["status"] not in FINAL or now["status"] == then["status"]


def check_model(seen: Seen, model: QueueModel) -> None:
    """Valkey holds what the model holds."""
    assert seen.lists == model.waiting()
    assert seen.rings == model.turns()
    assert seen.deadlines == set(model.ids("queued", "scheduled", "started"))
    assert seen.unarchived == model.unarchived()
    for id_, job in model.jobs.items():
        fields = seen.hashes[id_]
        assert (fields["status"], int(fields["attempt"])) == (job.status, job.attempt)
        assert (int(fields.get("tries", 0)), int(fields.get("deaths", 0))) == (job.tries, job.deaths)
        assert seen.results[id_] == job.results
        assert (seen.ttls[id_] == -1) == job.stays


class QueueMachine(RuleBasedStateMachine):
    """Each rule does the same to the queue and to the model, and compares what both answer."""

    def __init__(self, valkey: Valkey, taken: Counter[str]) -> None:
        super().__init__()
        self.taken = taken
        settings = Settings(_env_file=None, lease_seconds=600)  # nothing runs out by itself
        self.connection = valkey.connect()
        self.connection.flushall()
        self.runner = asyncio.Runner()
        self.queue = JobQueue(settings, valkey.url)
        self.runner.run(self.queue.tenant_jobs.set_shares(SHARES))
        self.model = QueueModel(settings.quarantine_deaths, {"@acme": 3}, {"@tiny": 1})
        self.claims: list[tuple[str, int]] = []
        self.before: dict[str, dict[str, str]] = {}
        self.deleted: set[str] = set()

    @initialize(ids=st.sets(IDS, min_size=4))
    def fill(self, ids: set[str]) -> None:
        for id_ in sorted(ids):
            self._enqueue(id_, Lane.DEFAULT, "default", "x", id_ in "abc")

    def teardown(self) -> None:
        self.runner.run(self.queue.close())
        self.runner.close()
        self.connection.close()

    @rule(step=STEPS)
    def take(self, step: tuple[str, tuple[Any, ...]]) -> None:
        name, arguments = step
        getattr(self, f"_{name}")(*arguments)
        self.taken[name] += 1

    def _enqueue(self, id_: str, lane: Lane, tenant: str, fingerprint: str, archive: bool) -> None:
        if id_ in self.deleted:  # its id is not used again
            return
        text = COUNTED_BYTES * "x" if id_ in LARGE else ""
        options: dict[str, Any] = {"fingerprint": fingerprint, "archive": archive, "tenant_id": tenant, "lane": lane}
        arguments = QueryArguments(Question(text, []))
        found = self.runner.run(self.queue.enqueue(new_job(id_, arguments=arguments, deadline_seconds=3600, **options)))
        name = list_name(QueueName.QUERIES, lane, tenant)
        assert (found.created, found.fingerprint) == self.model.enqueue(id_, name, fingerprint, archive=archive)

    def _claim(self, worker: str, lanes: list[tuple[str, int]], busy: bool, is_lost: bool) -> None:
        claim = self.runner.run(self.queue.claim(worker, lanes, in_flight=3 * busy))
        assert ([job.id for job in claim.jobs], claim.drain) == self.model.claim(worker, lanes, in_flight=3 * busy)
        for job in claim.jobs:
            known = self.model.jobs[job.id]
            expected = (known.attempt, known.tries, known.deaths_alone, known.alone)
            assert (job.attempt, job.tries, job.deaths_alone, job.alone) == expected
        if not is_lost:  # then no worker knows of the reply
            self.claims += [(job.id, job.attempt) for job in claim.jobs]

    def _act(self, back: int, stray: int, action: str, is_repeated: bool) -> None:
        """Let a worker do something with what it claimed lately or long ago, or never."""
        id_, attempt = self.claims[-1 - back % len(self.claims)] if self.claims else ("a", 1)
        for _ in range(1 + is_repeated):  # the first reply was lost
            found, expected = self._send(action, id_, attempt + stray)
            assert found == expected

    def _send(self, action: str, id_: str, attempt: int) -> tuple[bool, bool]:
        match action:
            case "heartbeat":
                lost = self.runner.run(self.queue.heartbeat([(id_, attempt, None)]))
                return id_ not in lost, self.model.heartbeat(id_, attempt)
            case "release":
                (done,) = self.runner.run(self.queue.release([(id_, attempt)]))
                return done, self.model.hand_back(id_, attempt, later=False, charge=False)
            case "retry" | "wait":
                charge = action == "retry"
                done = self.runner.run(self.queue.retry_later(id_, attempt, delay_seconds=600, charge=charge))
                return done, self.model.hand_back(id_, attempt, later=True, charge=charge)
            case _:
                ended = BAD if action == "failed" else DONE
                (done,) = self.runner.run(self.queue.commit("w1", [Outcome(id_, attempt, ended)]))
                return done, self.model.commit(id_, attempt, action)

    def _cancel(self, id_: str) -> None:
        assert (self.runner.run(self.queue.cancel(id_)) is not None) is self.model.cancel(id_)

    def _delete(self, id_: str) -> None:
        self.deleted.add(id_)
        self.before.pop(id_, None)
        assert self.runner.run(self.queue.delete(id_)) == self.model.delete(id_)

    def _time_passes(self, what: str, ids: set[str]) -> None:
        for id_ in self.model.run_out(what, ids):
            self.connection.zadd(f"ragq:{what}", {id_: LONG_AGO}, xx=True)

    def _deadlines_pass(self, ids: set[str]) -> None:
        self._time_passes("deadlines", ids)

    def _reap(self, everyone_died: bool) -> None:
        if everyone_died:
            self._time_passes("leases", set(self.model.jobs))
        self.connection.set("ragq:reaped", int(time.time() * 1000) - 1500)  # a second ago: due, and no gap
        reaped = self.runner.run(self.queue.reap())
        assert (reaped.put_back, reaped.delayed, reaped.late) == self.model.reap()

    def _archive(self, most: int) -> None:
        jobs = self.runner.run(self.queue.unarchived(10))
        assert {job.id for job in jobs} == self.model.unarchived()
        self.runner.run(self.queue.mark_archived(jobs[:most]))
        for job in jobs[:most]:
            self.model.jobs[job.id].archived = True

    @invariant()
    def all_is_as_promised(self) -> None:
        seen = look(self.connection, sorted(self.model.jobs))
        check_places(seen)
        check_bytes(seen)
        check_progress(self.before, seen.hashes)
        check_model(seen, self.model)
        self.before = seen.hashes

    @invariant()
    def rq_reads_every_job(self) -> None:
        for id_, job in self.model.jobs.items():
            seen = RqJob.fetch(id_, connection=self.connection, serializer=JSONSerializer)
            assert seen.get_status(refresh=False) == job.status


def test_any_order_of_steps_leaves_every_job_in_its_one_right_place(valkey: Valkey) -> None:
    bounds = profile(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None)
    taken = Counter[str]()  # each step asserts by itself, and the invariants after each
    run_state_machine_as_test(lambda: QueueMachine(valkey, taken), settings=bounds)  # type: ignore[arg-type]  # any factory will do
    assert set(taken) == set(ARGUMENTS)
