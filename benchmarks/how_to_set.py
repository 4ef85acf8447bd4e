"""Ask how to do something, without an LLM: about ragq's own pages, and about the manuals of programs from Debian packages.

The manuals are downloaded with apt-get, as packages of the system's release, which need not be installed: manual pages as `man` prints them in
80 columns, git's and borg's from their HTML documentation. Each set is a store of its own, all in one service. `how_to` was written
before anything was tuned on such questions, and is held out; the others were tuned on. An answer is useful if it, or a passage shown, has
one of the words looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.answer_set import Seen, ask
from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.evaluation.dataset import Dataset, Document, Question
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.measures import holds_one
from ragq.evaluation.store import fill_store
from ragq.models import CERTAIN

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "data"
AT_ONCE = 4
COLUMNS = "80"
GIT = "bisect branch cherry-pick clean commit merge rebase remote reset stash tag worktree".split()


@dataclass(frozen=True, slots=True)
class Manuals:
    """What a set is asked of.

    Attributes:
        packages: Of Debian.
        pages: Manual pages in them, such as "tmux.1".
        html: Patterns of HTML files in them, below /usr/share/doc.
        has_own: ragq's own pages, too.
    """

    packages: Sequence[str]
    pages: Sequence[str] = ()
    html: Sequence[str] = ()
    has_own: bool = False


SETS = {
    "how_to": Manuals(["rsync", "tmux"], ["rsync.1", "tmux.1"], has_own=True),
    "how_to_ragq": Manuals([], has_own=True),
    "how_to_held_out": Manuals(["wget", "less"], ["wget.1", "less.1"]),
    "how_to_git": Manuals(["git-doc"], html=[f"git-doc/git-{name}.html" for name in GIT]),
    "how_to_borg": Manuals(
        ["borgbackup-doc", "tar", "findutils"],
        ["tar.1", "find.1"],
        ["borgbackup/html/*.html", "borgbackup/html/usage/*.html", "borgbackup/html/deployment/*.html"],
    ),
    "how_to_curl": Manuals(["curl", "systemd", "openssh-client"], ["curl.1", "journalctl.1", "ssh.1"]),
    "how_to_gpg": Manuals(["gpg", "systemd"], ["gpg.1", "systemctl.1"]),
    "how_to_jq": Manuals(["jq", "nano"], ["jq.1", "nano.1", "nanorc.5"]),
}


def read_documents(manuals: Manuals, folder: Path) -> Iterator[Document]:
    """Download the packages into a folder, unless they are there, and read the manuals in them."""
    for package in manuals.packages:
        if not (target := folder / package).is_dir():
            _unpack(package, target)
        share = target / "usr" / "share"
        for page in manuals.pages:
            if (path := share / "man" / f"man{page[-1]}" / f"{page}.gz").is_file():
                yield Document(f"{page}.txt", _print_page(path))
        for pattern in manuals.html:
            for path in sorted((share / "doc").glob(pattern)):
                yield Document(path.name, path)
    if manuals.has_own:
        yield Document("README.md", ROOT / "README.md")
        docs = ROOT / "docs"
        paths = (path for path in sorted(docs.rglob("*.md")) if "decisions" not in path.parts)
        yield from (Document(path.relative_to(docs).as_posix(), path) for path in paths)


def _unpack(package: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run(["apt-get", "download", "-qq", package], folder)
        (found,) = Path(folder).glob("*.deb")
        _run(["dpkg-deb", "-x", str(found), str(target)], folder)


def _print_page(path: Path) -> str:
    return _run(["man", "-l", str(path)], path.parent, {"MANWIDTH": COLUMNS, "LC_ALL": "C.UTF-8"}).decode()


def _run(command: list[str], folder: str | Path, environment: dict[str, str] | None = None) -> bytes:
    try:
        return subprocess.run(
            command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        sys.exit(f"{command[0]} is missing: as root, apt-get install man-db.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(command)}: {error.stderr.decode().strip()}")


async def evaluate(client: ApiClient, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Fill a store for each set before the first question, so that each is asked of the same database."""
    async with AsyncExitStack() as stack:
        filled = []
        for name in names:
            questions = read_dataset(DATA / f"{name}.jsonl").questions
            dataset = Dataset(name, questions, list(read_documents(SETS[name], folder)))
            filling = fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None)
            filled.append((dataset, await stack.enter_async_context(filling)))
        return {
            dataset.name: {
                "documents": len(dataset.documents),
                "faults": len(store.faults),
                **await _ask_all(client, store.id, dataset.questions),
            }
            for dataset, store in filled
        }


async def _ask_all(client: ApiClient, store: str, questions: Sequence[Question]) -> dict[str, float]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def take(question: Question) -> Seen:
        async with slots:
            return await ask(client, store, question.text)

    return _count(questions, await asyncio.gather(*map(take, questions)))


def _count(questions: Sequence[Question], answers: Sequence[Seen]) -> dict[str, float]:
    asked = list(zip(questions, answers, strict=True))
    answerable = [(holds_one(seen.text, one.contains), seen) for one, seen in asked if not one.is_unanswerable]
    others = [seen for one, seen in asked if one.is_unanswerable]
    certain = [is_useful for is_useful, seen in answerable if seen.confidence >= CERTAIN]
    return {
        "answerable": len(answerable),
        "useful": sum(is_useful for is_useful, _ in answerable),
        "refused_answerable": sum(seen.refuses for _, seen in answerable),
        "certain": len(certain),
        "right_of_certain": sum(certain),
        "unanswerable": len(others),
        "refused_or_not_certain_unanswerable": sum(seen.confidence < CERTAIN for seen in others),
        "characters": round(mean(len(seen.text) for _, seen in answerable)),
    }


def main() -> None:
    """Measure with a service in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.how_to_set", description=__doc__)
    parser.add_argument("--manuals", type=Path, default=ROOT / "build" / "manuals", help="folder for the packages")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    arguments.manuals.mkdir(parents=True, exist_ok=True)
    measure_with_service(lambda client: evaluate(client, arguments.manuals, arguments.sets))


if __name__ == "__main__":
    main()
