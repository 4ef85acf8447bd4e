"""The commands of README, tutorial and how-to pages, against real processes; what they print is compared with the pages.

The pages' own folder is a temporary one, with ports of its own. What differs from a reader's folder is all here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import write_pdf
from tests.pages import Desk, read_steps
from tests.servers import FakeLlm, environment, free_port, processes_in, wait_until

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests-0123456789"
HOW_TO = [
    "use-an-llm.md",  # starts the service that the others ask
    "rerank.md",
    "ingest-documents.md",
    "read-scans.md",
    "evaluate.md",
    "feedback.md",
    "add-workers.md",
    "operate.md",
    "command-line.md",
    "back-up.md",
    "upgrade.md",
    "receive-webhooks.md",
    "mcp.md",
    "keys.md",
    "row-level-security.md",
    "limits.md",
    "audit.md",
    "readers.md",
    "weights.md",
    "use-a-managed-valkey.md",
    "use-elasticache.md",
    "use-memorydb.md",
    "use-memorystore.md",
    "use-pgbouncer.md",
]
OTHER_HOW_TO = {
    "console.md",  # tests/integration/test_console.py and tests/browser/test_console.py do what it says
    "high-availability.md",  # needs machines; make ha-test and tests/fault/test_failover.py lose them here
    "deploy-with-compose.md",  # make compose-test has its commands
    "run-on-kubernetes.md",  # needs a cluster; tests/unit/test_chart.py renders the chart
    "run-with-systemd.md",  # needs systemd; tests/unit/test_systemd.py reads the units
    "synonyms.md",  # tests/unit/test_synonyms.py reads such files
    "sign-in.md",  # needs a provider; tests/unit/test_settings.py reads its settings
    "watch.md",  # needs a collector and Prometheus; tests/integration/test_traces.py and make alerts-test have them
    "use-another-embedding-model.md",  # tests/integration/test_reembed.py runs the command
    "use-the-page.md",  # tests/browser do what it says
    "use-your-client.md",  # make clients-test runs its clients, each in an environment of its own
}
NOT_RUN = {
    "README.md": ["the tests are what it runs", "the tutorial has it running", "docs/how-to/use-an-llm.md is run"],
    "tutorial.md": [
        "the tests run in the environment that this makes",
        "Docker is not among what the tests need",
    ],
    "add-workers.md": [
        "the tutorial has the same",
        "a second `ragq up` in the folder is refused",
        "it needs another machine",
    ],
    "command-line.md": ["the service of this page is on this machine"],
    "back-up.md": ["it needs a bucket"],
    "mcp.md": ["the client matrix runs this client"],
    "operate.md": ["the tutorial has the same"],
    "upgrade.md": ["it needs two versions"],
    "read-scans.md": ["it is installed already, and needs root", "Docker is not among what the tests need"],
    "receive-webhooks.md": ["it is a part of a program; examples/webhook_receiver.py is run"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a reader has it, but with one page of docs/ only: to ingest all of them takes half a minute."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "curl").mkdir()
    (tmp_path / "curl" / ".curlrc").write_text("silent\nshow-error\n")  # as curl is in a terminal
    (tmp_path / "docs" / "explanation").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "explanation" / "queue.md", tmp_path / "docs" / "explanation")
    return tmp_path


def sit_down(folder: Path, instead: dict[str, str], **variables: str) -> Iterator[Desk]:
    """Open a desk in the folder, whose `ragq` listens on a port of its own, and leave it without a process."""
    address = f"127.0.0.1:{free_port()}"
    own = {"RAGQ_URL": f"http://{address}", "RAGQ_PORT": address.partition(":")[2], "CURL_HOME": str(folder / "curl")}
    desk = Desk(folder, environment(**own, **variables), {"127.0.0.1:8000": address} | instead)
    yield desk
    desk.close()
    wait_until(lambda: not processes_in(folder), seconds=20, what=f"the end of {processes_in(folder)}")


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    """A desk at which the tutorial is read, and README."""
    other = str(free_port())
    yield from sit_down(folder, {"RAGQ_PORT=8001": f"RAGQ_PORT={other}", "127.0.0.1:8001": f"127.0.0.1:{other}"})


@pytest.fixture
def desk_with_llm(folder: Path, llm: FakeLlm) -> Iterator[Desk]:
    """A desk with a key, a document and notes, at which a fake LLM stands in for OpenAI's."""
    write_pdf(folder / "handbook.pdf", [["The ferry of Quorra leaves at noon."]])
    (folder / "notes").mkdir()
    (folder / "notes" / "harbour.md").write_text("The lighthouse of Quorra is 61 metres tall.\n")
    instead = {"https://api.openai.com/v1": llm.base_url, "sk-…": "sk-none"}
    yield from sit_down(folder, instead, RAGQ_API_KEY=KEY)


@pytest.mark.timeout(300)
def test_the_tutorial_and_then_readme_do_what_they_say(desk: Desk) -> None:
    assert desk.run(read_steps(ROOT / "docs" / "tutorial.md")) == ""
    assert desk.run(read_steps(ROOT / "README.md")) == ""


@pytest.mark.timeout(300)
def test_the_how_to_pages_do_what_they_say(desk_with_llm: Desk) -> None:
    faults = [desk_with_llm.run(read_steps(ROOT / "docs" / "how-to" / page)) for page in HOW_TO]
    assert "".join(faults) == ""


def test_what_is_not_run_is_known() -> None:
    assert {page.name for page in (ROOT / "docs" / "how-to").glob("*.md")} == {*HOW_TO} | OTHER_HOW_TO
    pages = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *(ROOT / "docs" / "how-to" / name for name in HOW_TO)]
    steps = {page.name: read_steps(page) for page in pages}
    reasons = {
        name: list(dict.fromkeys(step.reason_not_run for step in of if step.reason_not_run))
        for name, of in steps.items()
    }
    assert {name: found for name, found in reasons.items() if found} == NOT_RUN
