"""What the clients' checks found: kept in build/clients.json, printed, and written into the documentation's table."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tests.clients.environments import HERE, ROOT

SERVICES = ("extractive", "llm")
FILE = ROOT / "build" / "clients.json"
PAGE = ROOT / "docs" / "how-to" / "use-your-client.md"
BEGIN, END = "<!-- clients: written by `make clients-test WRITE=1` -->\n", "<!-- clients: end -->\n"
DETAIL_WIDTH = 150


@dataclass(frozen=True)
class Result:
    """One check of one client against one service; `ok` is None if it did not run."""

    client: str
    version: str
    service: str
    check: str
    ok: bool | None
    detail: str
    known: str = ""


def known_failure(client: str, service: str, check: str) -> str:
    """Why a check fails that is not to be mended, or nothing."""
    for entry in tomllib.loads((HERE / "known_failures.toml").read_text()).get("failure", []):
        if (entry["client"], entry["check"]) == (client, check) and entry.get("service", service) == service:
            return f"{entry['whose']}: {entry['why']}"
    return ""


def keep(results: list[Result]) -> list[Result]:
    """Write the results to the file, beside what it has of other clients and services; returns all."""
    earlier = [Result(**each) for each in json.loads(FILE.read_text())] if FILE.exists() else []
    ran = {(result.client, service) for result in results for service in (result.service, "-")}
    kept = [each for each in earlier if (each.client, each.service) not in ran]
    together = sorted(kept + results, key=lambda each: (each.client, each.service))
    FILE.write_text(json.dumps([asdict(result) for result in together], indent=1))
    return together


def print_rows(results: Iterable[Result], *, everything: bool) -> None:
    """Print what failed or did not run, or everything."""
    for result in results:
        word = {True: "ok", False: "known" if result.known else "FAIL", None: "not run"}[result.ok]
        if everything or not result.ok:
            row = f"{word:8}{result.client:16}{result.service:11}{result.check:50} {result.known or result.detail}"
            print(row if everything else row[: 86 + DETAIL_WIDTH], flush=True)


def summarize(results: list[Result]) -> int:
    """Print a line for each client; returns the exit code."""
    print(f"\n{'client':20}{'extractive':>12}{'llm':>12}")
    for name in sorted({result.client for result in results}):
        print(f"{name:20}{count(results, name, 'extractive'):>12}{count(results, name, 'llm'):>12}")
    failed = [result for result in results if result.ok is False and not result.known]
    passed = sum(bool(result.ok) for result in results)
    known = sum(bool(result.known) for result in results)
    skipped = sum(result.ok is None for result in results)
    print(f"\n{passed} passed, {len(failed)} failed, {known} failed as known, {skipped} not run: build/clients.json")
    return int(bool(failed))


def count(results: Iterable[Result], client: str, service: str) -> str:
    """How many of a client's checks passed against a service, of those that ran."""
    mine = [each for each in results if (each.client, each.service) == (client, service) and each.ok is not None]
    return f"{sum(bool(each.ok) for each in mine)}/{len(mine)}" if mine else "not run"


def write_table(results: list[Result]) -> None:
    """Write the table, and the checks that fail, between the page's marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


def table(results: list[Result]) -> str:
    """The table in Markdown, and under it the checks that do not pass."""
    lines = ["| client | versions | without an LLM | with an LLM |", "|---|---|---|---|"]
    for name, version in sorted({(result.client, result.version) for result in results}):
        counts = [count(results, name, service) for service in SERVICES]
        lines.append(f"| {name} | {version} | {' | '.join(counts)} |")
    failed = [result for result in results if result.ok is False]
    if failed:
        lines += ["", "Not passed:", ""]
    services = {"extractive": "without an LLM", "llm": "with an LLM"}
    for result in failed:
        why = result.known or result.detail
        lines.append(f"- {result.client}, {services.get(result.service, '')}, “{result.check}”: {why}.")
    return "\n".join(lines) + "\n"
