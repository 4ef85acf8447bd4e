"""The Lua scripts that Valkey runs: each changes a job in one step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).parent
USERS_OF_LIMITS = ("enqueue", "commit", "add_usage", "set_tokens", "delete")


class Script(NamedTuple):
    """A script's text, and the digest under which Valkey caches it."""

    text: str
    digest: str


def load_scripts() -> dict[str, Script]:
    """Read the scripts by name, with their digests."""
    return {name: Script(text, hashlib.sha1(text.encode()).hexdigest()) for name, text in read_scripts().items()}  # noqa: S324  (Valkey names scripts by SHA-1)


def read_scripts() -> dict[str, str]:
    """Read the scripts by name, with the parts prepended that they use.

    When Valkey's memory is full, only `enqueue` is refused; the scripts that finish accepted jobs may still write.
    """
    texts = {path.stem: path.read_text() for path in SCRIPTS.glob("*.lua")}
    common, position, limits = texts.pop("common"), texts.pop("position"), texts.pop("limits")
    texts |= {name: limits + texts[name] for name in USERS_OF_LIMITS}
    heads = {name: "#!lua\n" if name == "enqueue" else "#!lua flags=allow-oom\n" for name in texts}
    parts = {name: common + (position if name in ("enqueue", "place") else "") for name in texts} | {"read": ""}
    return {name: heads[name] + parts[name] + text for name, text in texts.items()}
