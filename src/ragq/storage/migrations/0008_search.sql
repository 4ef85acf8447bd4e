-- Searches in large stores. Half precision halves the vectors and their index. Rows stay whole, so that a scan of a
-- store reads its vectors and words where its rows are; a row that would be too long keeps its vector.
-- A million chunks take minutes, and the more memory the fewer.
SET LOCAL statement_timeout = 0;
SET LOCAL maintenance_work_mem = '2GB';
SET LOCAL max_parallel_maintenance_workers = 0; -- workers share that much memory in /dev/shm, and a container has 64 MB
DROP INDEX chunks_by_embedding;
ALTER TABLE chunks SET (toast_tuple_target = 4080);
ALTER TABLE chunks ALTER COLUMN embedding SET STORAGE MAIN, ALTER COLUMN text_search SET STATISTICS 250;
ALTER TABLE chunks ALTER COLUMN embedding TYPE halfvec({dimensions});
CREATE INDEX chunks_by_embedding ON chunks USING hnsw (embedding halfvec_cosine_ops)
    WITH (m = 24, ef_construction = 128);
-- A search reads the words that wait to be put into the index one by one.
ALTER INDEX chunks_by_word SET (gin_pending_list_limit = 256);
-- How many chunks are in a store, from the index alone.
CREATE INDEX vector_store_files_with_chunks ON vector_store_files (vector_store_id) INCLUDE (tenant_id, chunk_count)
    WHERE chunk_count > 0;
