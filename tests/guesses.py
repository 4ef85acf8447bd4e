"""Ids that somebody guesses who knows their form, or even those of another tenant."""

from __future__ import annotations

import random
from collections.abc import Iterator

HEX = "0123456789abcdef"
DIGITS = 32  # of an id, after its prefix


def _other_digit(digits: str, guesses: random.Random) -> str:
    place = guesses.randrange(len(digits))
    return digits[:place] + guesses.choice(HEX.replace(digits[place], "")) + digits[place + 1 :]


def guess_ids(ids: dict[str, str], seed: int = 0) -> Iterator[dict[str, str]]:
    """Make up ids like these without an end: random ones of their form, and forgeries of these. None is one of these.

    A forgery has another digit, capitals, a digit too few or too many, a character of SQL's patterns, or an escaped U+0000.
    """
    guesses = random.Random(seed)
    forgeries = (
        lambda digits: _other_digit(digits, guesses),
        lambda digits: digits[:-1],
        lambda digits: digits + guesses.choice(HEX),
        lambda digits: digits[:-1] + "_",
        lambda digits: digits[:4] + "%25",
        lambda digits: digits.upper() if digits.upper() != digits else digits + "0",
        lambda digits: digits + "%20",
    )
    while True:
        forge = guesses.choice(forgeries)
        is_random = guesses.random() < 0.8
        yield {
            name: id_[:-DIGITS] + (f"{guesses.getrandbits(128):032x}" if is_random else forge(id_[-DIGITS:]))
            for name, id_ in ids.items()
        }
