"""The command line of the scripts that generate files of the repository: write them, or with `--check` only compare."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(files: dict[Path, str | bytes], *, source: str, target: str) -> int:
    """Write the files; with `--check`, name those that differ and return 1.

    Args:
        source: What the files are made from.
        target: The Makefile's target that makes them.
    """
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    stale = [path for path, content in contents.items() if not path.exists() or path.read_bytes() != content]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[path])
        return 0
    if stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"Not up to date with {source}: {names}. Run `make {target}`.", file=sys.stderr)
    return 1 if stale else 0
