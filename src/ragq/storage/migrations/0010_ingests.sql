-- A long document is stored by many statements of one transaction. Its chunks carry the number of that transaction, so that
-- they stand beside those of the version before, and beside those of a worker that froze while it stored the same file.
SET LOCAL statement_timeout = 0;
ALTER TABLE chunks ADD COLUMN version xid8 NOT NULL DEFAULT '0';
ALTER TABLE chunks ALTER COLUMN version SET DEFAULT pg_current_xact_id();
ALTER TABLE chunks DROP CONSTRAINT chunks_pkey, ADD PRIMARY KEY (vector_store_id, file_id, ordinal, version);
-- A reference would lock the file's row from the first chunk to the last, so a delete of the file would wait for them.
-- The ingest looks for the row at its end instead, in the same transaction; a trigger deletes as the reference did.
ALTER TABLE chunks DROP CONSTRAINT chunks_vector_store_id_file_id_fkey;
CREATE FUNCTION delete_chunks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM chunks WHERE vector_store_id = OLD.vector_store_id AND file_id = OLD.file_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER delete_chunks AFTER DELETE ON vector_store_files FOR EACH ROW EXECUTE FUNCTION delete_chunks();
-- The first generation is the time in microseconds: a file that is taken out and put in again gets a job of another id.
ALTER TABLE vector_store_files
    ALTER COLUMN generation TYPE bigint,
    ALTER COLUMN generation SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
