"""The tutorial's worker: clients made on import, and the function that RQ calls for each question."""

import os

from langchain_openai import OpenAIEmbeddings
from langchain_postgres import PGVector
from openai import OpenAI

openai_client = OpenAI()
embedding_model = OpenAIEmbeddings(model=os.environ["EMBEDDING_MODEL"], check_embedding_ctx_length=False)
vector_store = PGVector(
    embeddings=embedding_model,
    collection_name="learning_rag",
    connection=os.environ["DATABASE_URL"],
    use_jsonb=True,
    create_extension=False,
)


def process_query(query: str) -> str:
    """Search, and let the LLM answer from the results."""
    results = vector_store.similarity_search(query=query)
    context = "\n\n".join(
        f"Page content: {result.page_content}\nFile location: {result.metadata['source']}" for result in results
    )
    system = (
        f"Answer the user's question from the following context, and name the file to read on.\n\nContext:\n{context}"
    )
    response = openai_client.chat.completions.create(
        model="fake", messages=[{"role": "system", "content": system}, {"role": "user", "content": query}]
    )
    return response.choices[0].message.content or ""
