"""Requests made up by Hypothesis, held against the rules of docs/how-to/keys.md, which are written again here and nowhere imported.

Callers of every role in several tenants, also with keys that are made on the way, create, read, change, list and delete objects by ids of their own and of
others. The model knows who may do what and whose each object is; the service must do nothing else.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.servers import KEY, Ragq, stop
from tests.tenants import Caller

RANKS = {"nobody": 0, "reader": 1, "user": 2, "admin": 3, "operator": 4}  # each may what those before it may
TENANTS = ("default", "rules-a", "rules-b")
ROLES = ("reader", "user", "admin")
MOST_STEPS, EXAMPLES = 40, 40


@dataclass(frozen=True)
class Kind:
    """What there is of objects: where they are, how one is made, and who may do so.

    Attributes:
        make: A body with a secret, by which the object would be recognized.
        least: Roles for reading, and for all else.
    """

    path: str
    make: Callable[[str], dict[str, Any]]
    least: tuple[str, str]
    change: Callable[[str], dict[str, Any]] | None = None
    deletes: bool = True


def form_of(secret: str) -> dict[str, Any]:
    return {"files": {"file": (f"{secret}.md", f"The secret is {secret}.".encode())}, "data": {"purpose": "assistants"}}


def json_of(**fields: Any) -> dict[str, Any]:
    return {"json": fields}


KINDS = {
    "store": Kind(
        "/v1/vector_stores", lambda it: json_of(name=it), ("reader", "user"), lambda it: json_of(metadata={"a": it})
    ),
    "file": Kind("/v1/files", form_of, ("reader", "user")),
    "conversation": Kind(
        "/v1/conversations",
        lambda it: json_of(items=[{"type": "message", "role": "user", "content": it}]),
        ("reader", "reader"),
        lambda it: json_of(metadata={"a": it}),
    ),
    "webhook": Kind(
        "/v1/webhook_endpoints", lambda it: json_of(url=f"https://hooks.example.com/{it}"), ("admin", "admin")
    ),
    "key": Kind("/v1/admin/keys", lambda it: json_of(name=it), ("admin", "admin")),
}
OPERATORS = ("/metrics", "/v1/admin/tenants", "/v1/admin/tenants/rules-a", "/v1/admin/audit_log?tenant=rules-b")
READERS = ("/v1/models", "/v1/files", "/v1/vector_stores", "/v1/chat/completions")


@dataclass
class Who:
    """A caller as the model knows it."""

    caller: Caller
    tenant: str
    role: str
    key_id: str = ""

    def may(self, role: str) -> bool:
        return RANKS[self.role] >= RANKS[role]


@dataclass
class World:
    """The model: whose each object is, and the secrets of each tenant."""

    root: Caller
    people: list[Who]
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def objects(self, kind: str) -> list[str]:
        return [id_ for of, id_ in self.owners if of == kind]

    def add_secret(self, tenant: str) -> str:
        secret = f"secret{secrets.token_hex(6)}"
        self.secrets[secret] = tenant
        return secret

    def check(self, who: Who, answer: httpx2.Response, least: str, *, owner: str | None = "") -> bool:
        """Hold an answer against the rules; returns whether the request was allowed.

        Args:
            least: The role that the request needs.
            owner: Whose object it names; None if there is none, empty if it names none.
        """
        shown = {self.secrets[one] for one in self.secrets if one in answer.text}
        assert who.role == "operator" or shown <= {who.tenant}, answer.text
        if who.role == "nobody":
            assert answer.status_code in (401, 429)
            self.seen["unknown key"] += 1
        elif not who.may(least):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role")
            self.seen["lower role"] += 1
        elif owner not in ("", who.tenant):
            assert answer.status_code == 404
            self.seen["another's or no object"] += 1
        else:
            assert answer.status_code == 200, answer.text
            self.seen["allowed"] += 1
            return True
        return False


def create(world: World, who: Who, kind_name: str, _target: int) -> None:
    kind, secret = KINDS[kind_name], world.add_secret(who.tenant)
    answer = who.caller.call("POST", kind.path, **kind.make(secret))
    if world.check(who, answer, kind.least[1]):
        world.owners[kind_name, answer.json()["id"]] = who.tenant


def read(world: World, who: Who, kind_name: str, target: int) -> None:
    if id_ := pick(world, kind_name, target):
        answer = who.caller.call("GET", f"{KINDS[kind_name].path}/{id_}")
        world.check(who, answer, KINDS[kind_name].least[0], owner=world.owners[kind_name, id_])
        if kind_name == "file":
            answer = who.caller.call("GET", f"/v1/files/{id_}/content")
            world.check(who, answer, "reader", owner=world.owners[kind_name, id_])


def change(world: World, who: Who, kind_name: str, target: int) -> None:
    kind, id_ = KINDS[kind_name], pick(world, kind_name, target)
    if kind.change and id_:
        owner = world.owners[kind_name, id_]
        body = kind.change(world.add_secret(who.tenant))
        world.check(who, who.caller.call("POST", f"{kind.path}/{id_}", **body), kind.least[1], owner=owner)


def delete(world: World, who: Who, kind_name: str, target: int) -> None:
    id_ = pick(world, kind_name, target)
    if id_ and id_ not in {
        one.key_id for one in world.people
    }:  # a key that goes on for five seconds would not fit the model
        owner = world.owners[kind_name, id_]
        answer = who.caller.call("DELETE", f"{KINDS[kind_name].path}/{id_}")
        if world.check(who, answer, KINDS[kind_name].least[1], owner=owner):
            del world.owners[kind_name, id_]
            again = who.caller.call("GET", f"{KINDS[kind_name].path}/{id_}")
            world.check(who, again, KINDS[kind_name].least[0], owner=None)


def list_all(world: World, who: Who, kind_name: str, _target: int) -> None:
    if kind_name == "conversation":  # they are not listed
        return
    answer = who.caller.call("GET", KINDS[kind_name].path + "?limit=100")
    if world.check(who, answer, KINDS[kind_name].least[0]):
        listed = {one["id"] for one in answer.json()["data"]}
        known = {id_ for id_ in world.objects(kind_name) if id_ in listed}
        assert {world.owners[kind_name, id_] for id_ in known} <= {who.tenant}


def make_key(world: World, who: Who, _kind: str, target: int) -> None:
    """Make a key, also for another tenant, and let its holder take part."""
    tenant, role = TENANTS[target % 3], ROLES[target % 7 % 3]
    body = {"name": world.add_secret(tenant), "role": role, "tenant": tenant}
    answer = who.caller.call("POST", "/v1/admin/keys", json=body)
    least = "admin" if tenant == who.tenant else "operator"
    if world.check(who, answer, least):
        made = answer.json()
        is_operator = (tenant, role) == ("default", "admin")
        new = Who(Caller(who.caller.url, made["value"]), tenant, "operator" if is_operator else role, made["id"])
        world.people.append(new)
        world.owners["key", made["id"]] = tenant


def use_in_a_body(world: World, who: Who, _kind: str, target: int) -> None:
    """Name an object in a body: a file to put into the own store, a store to search, a conversation to go on from."""
    file_id, store_id, conversation_id = (pick(world, kind, target) for kind in ("file", "store", "conversation"))
    if file_id:
        answer = who.caller.call("POST", "/v1/vector_stores/default/files", json={"file_id": file_id})
        world.check(who, answer, "user", owner=world.owners["file", file_id])
    if store_id:
        answer = who.caller.call("POST", f"/v1/vector_stores/{store_id}/search", json={"query": "What is the secret?"})
        world.check(who, answer, "reader", owner=world.owners["store", store_id])
    if conversation_id:
        asked = {"input": "What is the secret?", "conversation": conversation_id}
        answer = who.caller.call("POST", "/v1/responses/input_tokens", json=asked)
        world.check(who, answer, "reader", owner=world.owners["conversation", conversation_id])


def search(world: World, who: Who, _kind: str, _target: int) -> None:
    answer = who.caller.call("POST", "/v1/vector_stores/default/search", json={"query": "What is the secret?"})
    world.check(who, answer, "reader")


def ask(world: World, who: Who, _kind: str, _target: int) -> None:
    answer = who.caller.call("POST", "/v1/responses", json={"input": "What is the secret?"})
    world.check(who, answer, "reader")


def look(world: World, who: Who, _kind: str, target: int) -> None:
    """Look at what all may see, and at what is the operator's."""
    world.check(who, who.caller.call("GET", READERS[target % len(READERS)]), "reader")
    path = OPERATORS[target % len(OPERATORS)]
    world.check(who, who.caller.call("GET", path), "admin" if path.endswith(f"tenant={who.tenant}") else "operator")


ACTIONS = (create, create, read, read, change, delete, list_all, make_key, use_in_a_body, search, ask, look)


def pick(world: World, kind: str, target: int) -> str | None:
    objects = world.objects(kind)
    return objects[target % len(objects)] if objects else None


@pytest.fixture(scope="module")
def root(plain_ragq: Ragq) -> Iterator[Caller]:
    """The operator, at an API process of these tests: so many wrong keys would slow down what others ask."""
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=KEY)
    yield Caller(url, KEY)
    stop(api)


@pytest.fixture(scope="module")
def world(root: Caller) -> World:
    """A caller of each role in each tenant, the operator with `RAGQ_API_KEY`, and someone whose key opens nothing."""
    people = [Who(root, "default", "operator"), Who(Caller(root.url, "ragq-guessed"), "nowhere", "nobody")]
    for tenant in TENANTS:
        if tenant != "default":
            root.post("/v1/admin/tenants", {"id": tenant})
        for role in ROLES:
            made = root.post("/v1/admin/keys", {"name": f"{role} of {tenant}", "role": role, "tenant": tenant})
            is_operator = (tenant, role) == ("default", "admin")
            people.append(Who(Caller(root.url, made["value"]), tenant, "operator" if is_operator else role, made["id"]))
    return World(root, people)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.sampled_from(ACTIONS),
        st.sampled_from(sorted(KINDS)),
        st.integers(0, 1000),
    ),
    min_size=MOST_STEPS // 2,
    max_size=MOST_STEPS,
)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of a long representation, when it fails
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example that failed is not made smaller: the world has changed since
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
def test_nobody_gets_what_the_rules_deny(world: World, steps: list[tuple[int, Any, str, int]]) -> None:
    people, judged = list(world.people), world.seen.total()
    for person, action, kind, target in steps:
        action(world, world.people[person % len(world.people)], kind, target)
    del world.people[len(people) :]  # the next example begins with the same callers
    assert world.seen.total() > judged, "no answer was held against the rules"


def test_the_requests_met_every_rule_often(world: World) -> None:
    assert len(world.seen) == 4
    assert min(world.seen.values()) > EXAMPLES
