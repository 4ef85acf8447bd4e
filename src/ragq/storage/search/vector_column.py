"""The column that holds the chunks' vectors. Its name stands for one embedding model and is never used for another.

So a process that goes on with the model of before `ragq reembed` names a column that is gone, and PostgreSQL refuses its
statement: no search compares the vectors of two models. A process reads the name once, and again after such a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from ragq.settings import Settings

FIRST_COLUMN = "embedding"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What vectors depend on: those of two different models must not be compared.

    Attributes:
        dimensions: Length of the vectors.
        document_prefix: Stands before each passage when it is embedded.
    """

    name: str
    dimensions: int
    document_prefix: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> EmbeddingModel:
        return cls(settings.embedding_name, settings.embedding_dimensions, settings.document_prefix)

    @classmethod
    def of_facts(cls, facts: dict[str, str], prefix: str = "") -> EmbeddingModel | None:
        """Read a model from the table `facts`; None if there is none with this prefix."""
        if (name := facts.get(f"{prefix}embedding_model")) is None:
            return None
        dimensions = int(facts[f"{prefix}embedding_dimensions"])
        return cls(name, dimensions, facts.get(f"{prefix}embedding_document_prefix", ""))

    def facts(self, prefix: str = "") -> dict[str, str]:
        """The rows of the table `facts` that name this model."""
        return {
            f"{prefix}embedding_model": self.name,
            f"{prefix}embedding_dimensions": str(self.dimensions),
            f"{prefix}embedding_document_prefix": self.document_prefix,
        }

    def __str__(self) -> str:
        prefix = f", passages prefixed with {self.document_prefix!r}" if self.document_prefix else ""
        return f"{self.name} ({self.dimensions} dimensions{prefix})"


async def read_facts(connection: AsyncConnection[Any]) -> dict[str, str]:
    return dict(await (await connection.execute("SELECT name, value FROM facts")).fetchall())


async def write_facts(connection: AsyncConnection[Any], facts: dict[str, str]) -> None:
    """Set facts, replacing those of the same names."""
    for name, value in facts.items():
        await connection.execute(
            "INSERT INTO facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value", [name, value]
        )


def column_of(facts: dict[str, str]) -> str:
    return facts.get("embedding_column", FIRST_COLUMN)
