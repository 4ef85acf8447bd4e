"""The previous lesson: split the documents of a folder and store their embeddings. `python ingest.py FOLDER`."""

import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter
from queues.worker import vector_store

documents = [Document(path.read_text(), metadata={"source": path.name}) for path in Path(sys.argv[1]).rglob("*.md")]
splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=400)
chunks = splitter.split_documents(documents)
vector_store.add_documents(chunks)
print(len(chunks))
