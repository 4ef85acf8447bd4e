-- For the sweeper, which looks for ingests that no job works on.
CREATE INDEX unfinished_ingests ON vector_store_files (created_at, vector_store_id, file_id)
    WHERE status = 'in_progress';
