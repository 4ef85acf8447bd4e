"""The documents against the code: links, commands, generated pages and the version."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import click
import pypdfium2
import pytest

from ragq import __version__
from ragq.cli import main
from ragq.demo import HANDBOOK, QUESTIONS
from ragq.settings import Settings
from tests.clients.environments import client_names, version_of

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE_SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"(?<=^```console\n).*?(?=^```)", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?<![\w/.-])[\w/-]+\.(?:py|lua|sql|toml)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_of(page: Path) -> str:
    """Everything in a page that is set as code, but for what commands print."""
    text = CONSOLE.sub(lambda block: "\n".join(re.findall(r"^\$ (.*)", block[0], re.MULTILINE)), page.read_text())
    return "\n".join(FENCE.findall(text) + CODE_SPAN.findall(FENCE.sub("", text)))


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors_of(linked), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_and_ragq_command_named_exists(page: Path) -> None:
    assert isinstance(main, click.Group)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = code_of(page)
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert target in targets, f"make {target}"
    for name, rest in re.findall(r"(?:^|[/(;] ?|exec \w+ )ragq ([a-z]+(?:-[a-z]+)*)\b(.*)", code, re.MULTILINE):
        command = main.commands.get(name)
        if isinstance(command, click.Group) and (inner := re.match(r" ([a-z]+)", rest)):
            command = command.commands.get(inner[1])
        assert command is not None, f"ragq {name}{rest}"
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest.partition("#")[0]):
            assert option in known | {"--help"}, f"ragq {name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_named_exists(page: Path) -> None:
    folders = [ROOT, ROOT / "src", ROOT / "src" / "ragq", page.parent]
    names = {path.name for folder in ("src", "tests", "scripts") for path in (ROOT / folder).rglob("*")}
    for path in PATH.findall(code_of(page)):
        assert any((folder / path).exists() for folder in folders) or ("/" not in path and path in names), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_command_and_option_is_in_the_reference() -> None:
    assert isinstance(main, click.Group)
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    groups = {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    inner = {f"{of} {name}": command for of, group in groups.items() for name, command in group.commands.items()}
    for name, command in (dict(main.commands) | inner).items():
        if name in groups:
            continue
        assert f"## ragq {name}\n" in text
        part = text.partition(f"## ragq {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in part or parameter.opts[0] in part, f"ragq {name} {parameter.opts}"


def test_every_setting_named_is_one() -> None:
    known = {f"RAGQ_{name.upper()}" for name in Settings.model_fields}
    for page in PAGES:
        # RAGQ_LLM_… with an ellipsis or an underscore at its end stands for several.
        named = set(re.findall(r"\bRAGQ_[A-Z_]*[A-Z]\b", page.read_text()))
        assert named <= known, name_of(page)


def test_every_log_line_and_metric_is_described() -> None:
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    sources = [path.read_text() for path in (ROOT / "src" / "ragq").rglob("*.py")]
    events = {name for source in sources for name in re.findall(r"\blog\.[iwe]\w+\(\s*\"(\w+)\"", source)}
    metrics = {name for source in sources for name in re.findall(r"(?:Counter|Gauge|Histogram)\(\s*\"(\w+)\"", source)}
    assert len(events) > 50
    assert len(metrics) > 20
    described = set(CODE_SPAN.findall(text))
    assert events <= described, events - described
    assert metrics <= described | {name.removesuffix("_total") for name in described}, metrics - described


def test_the_clients_that_were_run_are_those_of_the_locks() -> None:
    text = (ROOT / "docs" / "how-to" / "use-your-client.md").read_text()
    for name in client_names():
        assert f"\n| {name} | {version_of(name)} |" in text, f"{name}: run `make clients-test WRITE=1`"


def test_the_versions_agree() -> None:
    assert metadata.version("ragq") == __version__
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_handbook_has_pages_and_answers_the_demos_questions() -> None:
    document = pypdfium2.PdfDocument(HANDBOOK / "handbook.pdf")
    pages = [page.get_textpage().get_text_range() for page in document]
    document.close()
    assert 8 <= len(pages) <= 32
    text = " ".join(" ".join([*pages, (HANDBOOK / "operations.md").read_text()]).split())
    for answer in (
        "until a job of a killed worker starts again",
        "A document that kills its worker is tried twice",
        "The command `ragq worker` starts another worker in a second terminal.",
        "The results of the two searches are combined by one score for each chunk, 0 to 1.",
        "What ragq does not promise: exactly-once execution",
    ):
        assert answer in text
    assert len(QUESTIONS) == 6  # these five, and one that the handbook does not answer


def test_the_licence_is_the_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
