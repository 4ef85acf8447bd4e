"""The lock files against pyproject.toml and against each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lock: str) -> set[str]:
    """What a lock pins, as `name==version`."""
    return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def names(requirements: set[str] | list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_development_has_the_versions_of_the_other_locks(lock: str) -> None:
    assert pins(lock) <= pins("requirements-dev.lock")


def test_every_requirement_is_locked_and_what_runs_ragq_has_no_test_runner() -> None:
    locked = names(pins("requirements.lock"))
    assert names(PROJECT["project"]["dependencies"]) <= locked
    tools = [one for group in PROJECT["dependency-groups"].values() for one in group if isinstance(one, str)]
    assert names(tools) <= names(pins("requirements-dev.lock"))
    assert "pytest" not in locked
