"""Read real files of many formats, and compare their words with those that other programs find in them.

The files come from Debian packages and PyPI's source distributions; nothing of them is kept in the project. Each is read as
an ingest reads it. Prints a line a format, and each file that is at fault: a crash, an error that says nothing, or half of
the words missing. The reference programs are Debian's pandoc, poppler-utils, catdoc, w3m, LibreOffice and
libemail-outlook-message-perl; what none of them can read is counted, and not compared.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ragq.errors import DocumentError, PoisonError, RagqError
from ragq.models import ParsedDocument
from ragq.parsing.parser import Parser
from ragq.settings import Settings

SDISTS = (
    "puremagic filetype oletools msoffcrypto-tool olefile hachoir python-docx python-pptx docx2python docxtpl openpyxl xlrd xlutils"
    " pyexcel pyexcel-xls pyexcel-ods odfpy ezodf tablib pandas msg-parser eml-parser talon flanker mailman PyRTF3 striprtf rtfparse"
    " pikepdf pdfminer.six pypdf EbookLib epub-meta pypub html5lib readability-lxml trafilatura nbformat nbconvert jupytext docutils"
    " Sphinx frictionless PyYAML xmlschema lxml unstructured markdown commonmark"
).split()
PACKAGES = (
    "antiword wv unoconv debian-reference-en developers-reference debian-policy maint-guide libreoffice-common tex-common"
    " libpython3.11-testsuite r-cran-readxl r-cran-officer r-cran-openxlsx r-cran-rio python3-docx xlsx2csv calibre"
).split()
FORMATS = (
    ".pdf .docx .pptx .xlsx .doc .ppt .xls .odt .ods .odp .rtf .html .epub .eml .msg .csv .tsv .json .xml .yaml .ipynb .rst .tex"
    " .md .txt .log .py"
).split()
MAX_BYTES = 400_000
A_FORMAT = 12  # most files, no more than A_PACKAGE of them from one package
A_PACKAGE = 4
LEAST_WORDS = 5  # fewer are not compared
LEAST_SHARE = 0.5
SECONDS = 120
AT_ONCE = 6  # files that LibreOffice converts
TEXT = {".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".rst", ".tex", ".md", ".txt", ".log", ".py"}
TOOLS = {
    "pandoc": "pandoc",
    "pdftotext": "poppler-utils",
    "catdoc": "catdoc",
    "w3m": "w3m",
    "soffice": "libreoffice",
    "msgconvert": "libemail-outlook-message-perl",
}
_WORD = re.compile(r"[^\W_]{3,}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file: `share` is that of the reference's words that were found; None if there is none."""

    path: Path
    fault: str = ""
    refused: str = ""
    share: float | None = None


def fetch(folder: Path) -> None:
    """Download and unpack what is not there yet."""
    for name in SDISTS:
        target = folder / name
        if not target.exists() and (url := _find_sdist(name)):
            target.mkdir(parents=True)
            with (
                urllib.request.urlopen(url, timeout=SECONDS) as answer,  # noqa: S310
                tarfile.open(fileobj=answer, mode="r|gz") as archive,
            ):
                archive.extractall(target, filter="data")
    for name in PACKAGES:
        target = folder / name
        if not target.exists():
            target.mkdir(parents=True)
            done = subprocess.run(["apt-get", "download", "-qq", name], cwd=target, capture_output=True, check=False)
            for package in target.glob("*.deb") if not done.returncode else []:
                subprocess.run(["dpkg-deb", "-x", package, target], check=True)


def _find_sdist(name: str) -> str | None:
    headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
    request = urllib.request.Request(f"https://pypi.org/simple/{name.lower().replace('.', '-')}/", headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        files = json.load(answer)["files"]
    urls = [str(file["url"]) for file in files if file["filename"].endswith(".tar.gz") and not file.get("yanked")]
    return urls[-1] if urls else None


def choose(folder: Path) -> list[Path]:
    """Choose files of each format from as many packages as there are, the same each time."""
    by_format: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.rglob("*"), key=lambda path: (-path.lstat().st_size, path)):
        suffix = {".htm": ".html", ".yml": ".yaml"}.get(path.suffix.lower(), path.suffix.lower())
        if suffix in FORMATS and path.is_file() and not path.is_symlink() and 200 < path.stat().st_size < MAX_BYTES:
            by_format[suffix][path.relative_to(folder).parts[0]].append(path)
    chosen = []
    for suffix in FORMATS:
        packages = by_format[suffix].values()
        turns = [files[turn] for turn in range(A_PACKAGE) for files in packages if turn < len(files)]
        chosen += turns[:A_FORMAT]
    return chosen


async def read(path: Path, parser: Parser, settings: Settings, converted: dict[Path, Counter[str]]) -> Outcome:
    """Read a file as an ingest does, and compare its words; a refusal is a fault if the reference finds words."""
    document, refused = None, ""
    try:
        document = await parser.parse(
            path,
            path.name,
            timeout_seconds=settings.parse_timeout_seconds,
            memory_bytes=settings.parse_memory_bytes,
        )
    except PoisonError as error:
        return Outcome(path, fault=error.message)
    except DocumentError as error:
        refused = error.code
    except RagqError as error:
        return Outcome(path, fault=f"{type(error).__name__}: {error.message}")
    reference = converted[path] if path in converted else await asyncio.to_thread(find_reference, path)
    if refused == "invalid_file":
        return Outcome(path, refused=refused, fault="refused without a reason")
    if sum(reference.values()) < LEAST_WORDS:
        return Outcome(path, refused=refused)
    if document is None:
        return Outcome(path, refused=refused, fault=f"{refused}, but there are {sum(reference.values())} words")
    share = sum((reference & count_words(_all_text(document))).values()) / sum(reference.values())
    return Outcome(path, share=share, fault=f"{share:.0%} of the words" if share < LEAST_SHARE else "")


def _all_text(document: ParsedDocument) -> str:
    places = " ".join(f"{place.name} {place.within}" for place in document.places)
    return f"{document.text} {document.title} {places}"


def count_words(text: str) -> Counter[str]:
    """Count the words of a text; each counts once, as headers that are repeated for each row shall not count for more."""
    return Counter(set(_WORD.findall(text.lower())))


def find_reference(path: Path) -> Counter[str]:
    """Find the words that another program finds in a file; none if it cannot read it."""
    suffix = path.suffix.lower()
    if suffix in TEXT:
        return count_words(path.read_bytes().decode("utf-8", "ignore"))
    try:
        return count_words(READERS[suffix](path)) if suffix in READERS else Counter()
    except (subprocess.SubprocessError, OSError):
        return Counter()


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    return done.stdout.decode("utf-8", "replace")


def convert(paths: list[Path]) -> dict[Path, Counter[str]]:
    """Find the words of the files that LibreOffice reads: its start takes longer than a file, so it converts many at once."""
    words: dict[Path, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for filters in dict.fromkeys(CONVERTED.values()):
            some = [path for path in paths if CONVERTED.get(path.suffix.lower()) == filters]
            for start in range(0, len(some), AT_ONCE):
                words |= _convert(some[start : start + AT_ONCE], filters, Path(folder))
    return words


def _convert(paths: list[Path], filters: str, folder: Path) -> dict[Path, Counter[str]]:
    """Convert some files under names of ours, as theirs may be the same; one that ends LibreOffice costs the others nothing."""
    source, target = folder / "source", folder / "target"
    for one in (source, target):
        shutil.rmtree(one, ignore_errors=True)
        one.mkdir()
    copies = [shutil.copy(path, source / f"{number}x{path.suffix.lower()}") for number, path in enumerate(paths)]
    profile = f"-env:UserInstallation=file://{folder}/profile"
    try:
        _run("soffice", profile, "--headless", "--convert-to", filters, "--outdir", target, *copies)
    except (subprocess.SubprocessError, OSError):
        if len(paths) > 1:
            return {path: words for one in paths for path, words in _convert([one], filters, folder).items()}
    return {path: count_words(_read_converted(target, f"{number}x*.*")) for number, path in enumerate(paths)}


def _read_converted(folder: Path, names: str) -> str:
    return "\n".join(
        _run("pdftotext", file, "-") if file.suffix == ".pdf" else file.read_text("utf-8", "replace")
        for file in folder.glob(names)
    )


def _read_mail(path: Path) -> str:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    return f"{message['subject']} {body.get_content() if body else ''}"


def _read_outlook(path: Path) -> str:
    return _run("msgconvert", "--outfile", "-", path)


_ALL_SHEETS = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1"
CONVERTED = {
    **dict.fromkeys((".docx", ".odt", ".doc", ".rtf"), "txt:Text (encoded):UTF8"),
    **dict.fromkeys((".xlsx", ".ods", ".xls"), _ALL_SHEETS),
    **dict.fromkeys((".pptx", ".odp", ".ppt"), "pdf"),
}
READERS: dict[str, Callable[[Path], str]] = {
    ".pdf": lambda path: _run("pdftotext", path, "-"),
    ".html": lambda path: _run("w3m", "-dump", "-T", "text/html", path),
    ".epub": lambda path: _run("pandoc", "-t", "plain", path),
    ".ipynb": lambda path: _run("pandoc", "-t", "plain", path),
    ".eml": _read_mail,
    ".msg": _read_outlook,
}


def show(outcomes: list[Outcome]) -> Iterator[str]:
    """Describe the outcomes, a line a format and a line a fault."""
    by_format: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        by_format[one.path.suffix.lower()].append(one)
    for suffix, some in by_format.items():
        shares = sorted(one.share for one in some if one.share is not None)
        median = f"{shares[len(shares) // 2]:.2f}" if shares else "–"
        refused = Counter(one.refused for one in some if one.refused)
        words = ", ".join(f"{count} {code}" for code, count in refused.items())
        yield f"{suffix:7} {len(some):3} files  {len(shares):3} compared  median share of words {median}  {words}"
    for one in outcomes:
        if one.fault:
            yield f"FAULT  {'/'.join(one.path.parts[-3:])}: {one.fault}"


async def run(folder: Path) -> int:
    """Fetch, choose and read the files; returns the number of faults."""
    fetch(folder)
    parser, settings = Parser(), Settings()
    outcomes = []
    chosen = choose(folder)
    converted = await asyncio.to_thread(convert, chosen)
    for number, path in enumerate(chosen, 1):
        outcomes.append(await read(path, parser, settings, converted))
        print(f"\r{number} of {len(chosen)}", end="", file=sys.stderr, flush=True)
    await parser.close()
    print(file=sys.stderr)
    print("\n".join(show(outcomes)))
    faults = sum(bool(one.fault) for one in outcomes)
    print(f"{len(outcomes)} files of {len({one.path.suffix.lower() for one in outcomes})} formats, {faults} faults")
    return faults


def main() -> None:
    """Read the files of a folder, which is filled if it is empty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build/real-documents"))
    folder = parser.parse_args().folder.resolve()
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        sys.exit(f"As root: apt-get install --no-install-recommends {' '.join(missing)}")
    sys.exit(asyncio.run(run(folder)) > 0)


if __name__ == "__main__":
    main()
