-- Searches look at every chunk of a small table; the index of vectors is made when the table has grown (vector_index.py).
DO $$
BEGIN
    IF (SELECT coalesce(sum(chunk_count), 0) FROM vector_store_files) <= 20000 THEN
        DROP INDEX IF EXISTS chunks_by_embedding;
    END IF;
END
$$;
