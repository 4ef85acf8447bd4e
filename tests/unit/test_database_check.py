"""What is said of a PostgreSQL that is too old, and of pgvector that is missing or too old."""

from __future__ import annotations

import pytest

from ragq.storage.database_check import DatabaseFacts, find_old_server, find_problem


@pytest.mark.parametrize(
    ("installed", "available", "said"),
    [
        (None, None, "install pgvector 0.8"),
        ("0.7.4", "0.8.1", "run ALTER EXTENSION vector UPDATE; in the database db"),
        ("0.7.4", "0.7.4", "Install a newer pgvector"),
        (None, "0.5.0", "Install a newer pgvector"),
    ],
)
def test_pgvector_that_is_missing_or_old_is_refused_with_the_way_out(
    installed: str | None, available: str | None, said: str
) -> None:
    problem = find_problem(DatabaseFacts("me", "db", "public", True, installed, available, True))
    assert said in (problem or "")


@pytest.mark.parametrize("version", ["0.8.0", "0.10.2", "1.0", "unpackaged"])
def test_pgvector_of_eight_or_newer_is_taken(version: str) -> None:
    assert find_problem(DatabaseFacts("me", "db", "public", True, version, version, True)) is None


def test_postgresql_before_sixteen_is_refused_with_its_version() -> None:
    assert "has version 15, and ragq needs 16 or newer" in (find_old_server(150_013) or "")
    assert find_old_server(160_000) is None
