"""A store to search: synthetic chunks, with words and vectors distributed like real ones.

Words are drawn by Zipf's law from the words of this project's documents, most frequent first, and then from synthetic
names: each of the 10 most common is in half of the chunks, the 100,000th in one of ten thousand. Vectors have TOPICS
centres, which differ in TOPIC_DIMENSIONS directions; a chunk lies around its centre in LOCAL_DIMENSIONS directions of that
topic, with noise in all directions. A file is about three topics. A chunk depends only on its file's number, so that the
store's content can be computed again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from ragq.models import Chunk, ParsedDocument
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.files import Files
from ragq.storage.ingests import Ingests
from ragq.storage.vector_index import write_index
from tests.ingests import put_in

Vectors = NDArray[np.float32]

ROOT = Path(__file__).parents[1]
TENANT = "default"
DIMENSIONS = 384
CHUNKS_A_FILE = 100
WORDS_A_CHUNK = 110
VOCABULARY = 200_000
TOPICS, TOPIC_DIMENSIONS, LOCAL_DIMENSIONS = 1000, 32, 24
LOCAL_SPREAD, NOISE = 0.8, 0.25
MID_CHUNKS = 30_000  # of a second store in the same table
MID_FILES_FROM, QUESTION_FILES_FROM, INGESTED_FILES_FROM = 10_000_000, 20_000_000, 30_000_000
INGESTED_CHUNKS_A_SECOND = 60  # what two cores can embed, at 30 ms a chunk
BUILD = "SET maintenance_work_mem = '3GB'; SET max_parallel_maintenance_workers = 2"
COPY = """COPY chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, page, heading, token_count,
                       text, embedding) FROM STDIN (FORMAT BINARY)"""


@cache
def words() -> tuple[list[str], NDArray[np.float64]]:
    """The vocabulary, and the cumulative probability of each word."""
    text = " ".join(path.read_text() for path in sorted(ROOT.glob("docs/**/*.md")))
    known = [word for word, _ in Counter(re.findall(r"[a-z]{2,}", text.lower())).most_common()]
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    names = ("".join(parts) for parts in itertools.product(syllables, repeat=3))
    all_words = list(itertools.islice(dict.fromkeys(itertools.chain(known, names)), VOCABULARY))
    share = 1 / (np.arange(len(all_words)) + 2.7)
    return all_words, np.cumsum(share / share.sum())


@cache
def topics() -> tuple[Vectors, Vectors, NDArray[np.int64]]:
    """The centres, a rotation, and the directions in which each topic spreads."""
    random = np.random.default_rng(1)
    projection = random.standard_normal((TOPIC_DIMENSIONS, DIMENSIONS), dtype=np.float32)
    centres = random.standard_normal((TOPICS, TOPIC_DIMENSIONS), dtype=np.float32) @ projection
    rotation = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))[0].astype(np.float32)
    directions = np.argsort(random.random((TOPICS, DIMENSIONS)), axis=1)[:, :LOCAL_DIMENSIONS]
    return centres / np.linalg.norm(centres, axis=1, keepdims=True), rotation, directions


def make_vectors(file: int) -> Vectors:
    """The vectors of a file's chunks: (CHUNKS_A_FILE, DIMENSIONS), of length 1."""
    random = np.random.default_rng((2, file))
    centres, rotation, directions = topics()
    topic = random.choice(random.choice(TOPICS, 3), CHUNKS_A_FILE)
    spread = np.zeros((CHUNKS_A_FILE, DIMENSIONS), dtype=np.float32)
    local = random.standard_normal((CHUNKS_A_FILE, LOCAL_DIMENSIONS), dtype=np.float32)
    np.put_along_axis(spread, directions[topic], local * (LOCAL_SPREAD / LOCAL_DIMENSIONS**0.5), axis=1)
    noise = random.standard_normal(spread.shape, dtype=np.float32) * np.float32(NOISE / DIMENSIONS**0.5)
    vectors = centres[topic] + spread @ rotation + noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]


def make_texts(file: int) -> list[str]:
    """The texts of a file's chunks."""
    vocabulary, cumulated = words()
    drawn = np.random.default_rng((3, file)).random((CHUNKS_A_FILE, WORDS_A_CHUNK))
    return [" ".join(map(vocabulary.__getitem__, row)) for row in np.searchsorted(cumulated, drawn).tolist()]


def file_id(file: int) -> str:
    return f"file-{hashlib.sha256(str(file).encode()).hexdigest()[:24]}"


def attributes_of(file: int) -> dict[str, str | float | bool]:
    """`shelf` is shared by 1 % of the files, `box` by 0.1 %, `even` by half."""
    return {"shelf": f"s{file % 100}", "box": file % 1000, "even": file % 2 == 0}


def build(url: str, stores: dict[str, range]) -> dict[str, Any]:
    """Fill the stores and then build the indexes as ragq defines them; returns seconds and sizes."""
    figures: dict[str, Any] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(BUILD)
        rules = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'chunks'::regclass AND contype IN ('p', 'f') ORDER BY contype DESC"
        constraints = connection.execute(rules).fetchall()
        for name, _ in constraints[::-1]:
            connection.execute(f"ALTER TABLE chunks DROP CONSTRAINT {name}")
        indexes = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'chunks'").fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        started = time.monotonic()
        with ProcessPoolExecutor(2) as pool:
            for store, files in stores.items():
                list(pool.map(_load, *zip(*[(url, store, files[n::2]) for n in range(2)], strict=True)))
        figures["load_seconds"] = round(time.monotonic() - started)
        steps = [(name, f"ALTER TABLE chunks ADD CONSTRAINT {name} {rule}") for name, rule in constraints]
        steps += [*indexes, ("chunks_by_embedding", write_index()), ("vacuum_analyze", "VACUUM ANALYZE")]
        for name, statement in steps:
            started = time.monotonic()
            connection.execute(statement)
            figures[f"{name}_seconds"] = round(time.monotonic() - started)
            print(name, figures[f"{name}_seconds"], "s", flush=True)
        sizes = connection.execute(
            "SELECT indexname, pg_relation_size(indexname::regclass) FROM pg_indexes WHERE tablename = 'chunks'"
        ).fetchall()
        (table,) = connection.execute("SELECT pg_table_size('chunks')").fetchone() or (0,)
        figures["size_mb"] = {name: size >> 20 for name, size in [("table", table), *sizes]}
    return figures


def _load(url: str, store: str, files: range) -> None:
    """Write a share of the files of a store."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO vector_stores (id, tenant_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [store, TENANT]
        )
        connection.commit()
        row = connection.execute(
            "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'chunks'::regclass AND attname = 'embedding'"
        ).fetchone()
        kind = ">f2" if row == ("halfvec",) else ">f4"
        for first in range(0, len(files), 100):
            block = files[first : first + 100]
            _load_records(connection, store, block)
            with connection.cursor().copy(COPY) as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                for file in block:
                    copy.write(_rows(store, file, kind))
                copy.write(b"\xff\xff")
            connection.commit()


def _load_records(connection: psycopg.Connection, store: str, files: range) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256) VALUES (%s, %s, %s, 'assistants', 1, %s)",
            [(file_id(file), TENANT, f"{file}.txt", str(file)) for file in files],
        )
        cursor.executemany(
            """INSERT INTO vector_store_files (vector_store_id, file_id, tenant_id, status, attributes, chunk_count)
               VALUES (%s, %s, %s, 'completed', %s, %s)""",
            [(store, file_id(file), TENANT, Jsonb(attributes_of(file)), CHUNKS_A_FILE) for file in files],
        )


def _rows(store: str, file: int, kind: str) -> bytes:
    """The chunks of a file in the binary format of COPY; offsets encode the ordinal."""

    def field(value: str | int | bytes | None) -> bytes:
        if value is None:
            return b"\xff\xff\xff\xff"
        data = value.to_bytes(4) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
        return len(data).to_bytes(4) + data

    rows = []
    vectors = make_vectors(file).astype(kind)
    for ordinal, text in enumerate(make_texts(file)):
        vector = DIMENSIONS.to_bytes(2) + b"\0\0" + vectors[ordinal].tobytes()
        where = (store, file_id(file), ordinal, TENANT, ordinal * 1000, ordinal * 1000 + len(text))
        rows.append(b"\x00\x0b" + b"".join(map(field, (*where, None, None, WORDS_A_CHUNK, text, vector))))
    return b"".join(rows)


async def ingest(url: str, store: str, seconds: float) -> None:
    """Add files to a store like a document worker, at the rate at which two cores can embed them."""
    database = await Database.open(Settings(_env_file=None), url, connections=1)
    files, ingests = Files(database), Ingests(database)
    started = time.monotonic()
    for number in itertools.count():
        due = started + number * CHUNKS_A_FILE / INGESTED_CHUNKS_A_SECOND
        if due > started + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        name = str(INGESTED_FILES_FROM + time.time_ns())
        file = await files.create(TENANT, filename=name, purpose="assistants", size=1, sha256=name)
        record = await put_in(database, store, file.id, attributes={})
        assert await ingests.begin_ingest(TENANT, store, file.id, record.generation, 1)
        made = [
            Chunk(text, 0, len(text), None, None, WORDS_A_CHUNK) for text in make_texts(INGESTED_FILES_FROM + number)
        ]
        vectors = make_vectors(INGESTED_FILES_FROM + number)
        assert await ingests.complete_ingest(record, 1, ParsedDocument(""), made, vectors, language="en")
    await database.close()
    print(number * CHUNKS_A_FILE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_store", description="Ingest into a store.")
    for argument, kind in (("url", str), ("store", str), ("seconds", float)):
        parser.add_argument(argument, type=kind)
    asyncio.run(ingest(**vars(parser.parse_args())))
