"""Guess the ids of another tenant's objects, and time whether an answer tells such an id from one that nobody has.

A `ragq up` of its own has a tenant with an object of each kind. An admin of another tenant sends guesses to every route that takes an id. Then it
sends the real ids and unknown ones in turns, the first of each pair by chance, and the times of each pair are compared.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Report, arguments
from tests.guesses import guess_ids
from tests.integration.test_keys import BODIES, FOREIGN, QUERIES, fill
from tests.servers import KEY, Ragq
from tests.tenants import Caller, make_objects

MOST_DEVIATIONS = 4.0  # of the share of pairs in which the real id took longer, from a half


@dataclass(frozen=True)
class Times:
    """The times of a route's pairs, in ms."""

    foreign: list[float]
    unknown: list[float]

    @property
    def slower_share(self) -> float:
        """In what share of the pairs the real id took longer."""
        return sum(one > other for one, other in zip(self.foreign, self.unknown, strict=True)) / len(self.foreign)

    @property
    def deviations(self) -> float:
        """How far that is from a half, in standard deviations of a fair coin."""
        return float(abs(self.slower_share - 0.5) / (0.5 / len(self.foreign) ** 0.5))


def send(caller: Caller, method: str, route: str, ids: dict[str, str]) -> tuple[int, float]:
    """Call a route with ids in its path; returns the status and the ms."""
    path = fill(route, ids) + QUERIES.get(route, "")
    body = BODIES.get(route, {}) if method == "POST" else {}
    begun = time.perf_counter()
    status = caller.call(method, path, **body).status_code
    return status, (time.perf_counter() - begun) * 1000


def count_hits(stranger: Caller, ids: dict[str, str], guesses: int) -> int:
    """How many guesses are answered with anything but 404."""
    made = zip(itertools.islice(guess_ids(ids), guesses), itertools.cycle(FOREIGN), strict=False)
    return sum(send(stranger, method, route, guessed)[0] != 404 for guessed, (method, route) in made)


def time_pairs(stranger: Caller, ids: dict[str, str], pairs: int) -> dict[str, Times]:
    """Time each route with real and with unknown ids, in turns."""
    unknown = {name: re.sub(r"[0-9a-f]{32}$", "0" * 32, id_) for name, id_ in ids.items()}
    times = {f"{method} {route}": Times([], []) for method, route in FOREIGN}
    for _ in range(pairs):
        for method, route in FOREIGN:
            of = times[f"{method} {route}"]
            turns = [(of.foreign, ids), (of.unknown, unknown)]
            random.shuffle(turns)
            for taken, these in turns:
                taken.append(send(stranger, method, route, these)[1])
    return times


def admin_of(root: Caller, tenant: str) -> Caller:
    """Make a tenant and an admin of it."""
    root.post("/v1/admin/tenants", {"id": tenant})
    return Caller(root.url, root.post("/v1/admin/keys", {"name": "x", "role": "admin", "tenant": tenant})["value"])


def run(report: Report, given: argparse.Namespace, folder: Path) -> None:
    """Guess, then time."""
    service = Ragq(folder / "data", RAGQ_API_KEY=KEY).start()
    try:
        root = Caller(service.url, KEY)
        ids = make_objects(admin_of(root, "owner"))
        stranger = admin_of(root, "stranger")
        hits = count_hits(stranger, ids, given.guesses)
        times = time_pairs(stranger, ids, given.pairs)
    finally:
        service.stop()
    report.figures = {
        "guesses": given.guesses,
        "hits": hits,
        "pairs": given.pairs,
        "routes": {
            name: {
                "foreign_ms": round(statistics.median(of.foreign), 2),
                "unknown_ms": round(statistics.median(of.unknown), 2),
                "foreign_slower": round(of.slower_share, 2),
            }
            for name, of in times.items()
        },
        "most_deviations": round(max(of.deviations for of in times.values()), 1),
    }
    report.checks = {
        "no guess hits": hits == 0,
        f"no route's pairs are {MOST_DEVIATIONS:g} deviations from a fair coin": (
            report.figures["most_deviations"] < MOST_DEVIATIONS
        ),
    }


def main() -> None:
    """Read the command line and run."""
    parser = arguments("guesses", __doc__)
    parser.add_argument("--guesses", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=200, help="of each route")
    given = parser.parse_args()
    report = Report("guesses")
    with tempfile.TemporaryDirectory(prefix="ragq-guesses-") as folder, report.watching():
        run(report, given, Path(folder))
    sys.exit(report.publish(given.out))


if __name__ == "__main__":
    main()
