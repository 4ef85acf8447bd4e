"""The results of a drill: figures and checks."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.drill.load import Account
from benchmarks.drill.stage import Run, Worker


@dataclass
class Report:
    """The results of one scenario.

    Attributes:
        checks: A sentence that must be true → whether it is.
        recoveries: Seconds from each kill to the next run of each job of the killed worker.
    """

    scenario: str
    figures: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was checked, and all of it holds."""
        return bool(self.checks) and all(self.checks.values())

    def failures(self) -> list[str]:
        return [check for check, holds in self.checks.items() if not holds]


def percentile(values: list[float], percent: float) -> float | None:
    """The value below which this percentage lies; None without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 2) if ordered else None


def spread(values: list[float]) -> dict[str, Any]:
    """Count, median, 95th percentile and largest."""
    return {
        "count": len(values),
        "p50": percentile(values, 50),
        "p95": percentile(values, 95),
        "max": percentile(values, 100),
    }


@dataclass(frozen=True)
class Recovery:
    """A rerun of a job after its worker was killed; `death` counts the job's deaths, from 1."""

    died_at: float
    ran_at: float
    death: int

    @property
    def seconds(self) -> float:
        return self.ran_at - self.died_at

    def overlaps(self, spans: list[tuple[float, float]]) -> bool:
        return any(start < self.ran_at and self.died_at < end for start, end in spans)


def recoveries(runs: list[Run], killed: list[Worker]) -> list[Recovery]:
    """For each job whose newest run was on a killed worker, find its next run."""
    by_tag: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_tag[run.tag].append(run)
    died_at = {worker.name: worker.killed_at for worker in killed if worker.killed_at}
    found: list[Recovery] = []
    for all_runs in by_tag.values():
        deaths = itertools.count(1)
        for run, following in itertools.pairwise(all_runs):
            death = died_at.get(run.worker)
            if death is not None and run.began_at <= death <= following.began_at:
                found.append(Recovery(death, following.began_at, next(deaths)))
    return found


def audit(report: Report, account: Account, results: dict[str, int], runs: list[Run]) -> None:
    """Count states, visible results and runs of all accepted jobs, and check them against the promise."""
    states = Counter(account.states.values())
    by_tag = Counter(run.tag for run in runs if run.tag in account.accepted)
    several = [id_ for id_, count in results.items() if count > 1]
    unseen = [
        tag for tag, id_ in account.accepted.items() if results[id_] == 0 and account.states[tag].startswith("finished")
    ]
    lost = [tag for tag, state in account.states.items() if state in ("waiting", "gone")]
    report.figures |= {
        "accepted": len(account.accepted),
        "states": dict(states),
        "lost": len(lost),
        "two_visible_results": len(several),
        "runs": by_tag.total(),
        "runs_of_one_job_max": max(by_tag.values(), default=0),
        "jobs_run_more_than_once": sum(count > 1 for count in by_tag.values()),
        "http_answers": {str(status): count for status, count in sorted(account.answers.items())},
    }
    if lost or several or unseen:
        report.figures["ids"] = {"lost": lost[:20], "two_visible_results": several[:20], "unseen": unseen[:20]}
    report.checks |= {
        "jobs were accepted": bool(account.accepted),
        "no accepted job is lost": not lost,
        "no job has two visible results": not several,
        "every finished job has a visible result": not unseen,
    }
