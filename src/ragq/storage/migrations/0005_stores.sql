-- A file or store is expired when its time is past, also before housekeeping has emptied it. Of a store, `expires_at` is
-- `last_active_at` plus the days, and is written with it.
ALTER TABLE files ADD COLUMN expires_at timestamptz;
ALTER TABLE vector_stores ADD COLUMN expires_after_days int, ADD COLUMN expires_at timestamptz;
CREATE INDEX files_to_expire ON files (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX vector_stores_to_expire ON vector_stores (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE vector_store_file_batches (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    vector_store_id text NOT NULL REFERENCES vector_stores ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancelled_at timestamptz
);
CREATE INDEX vector_store_file_batches_by_store ON vector_store_file_batches (vector_store_id);

-- A file may be in several batches of its store; each counts it by the one status that it has.
CREATE TABLE vector_store_file_batch_files (
    batch_id text NOT NULL REFERENCES vector_store_file_batches ON DELETE CASCADE,
    vector_store_id text NOT NULL,
    file_id text NOT NULL,
    PRIMARY KEY (batch_id, file_id),
    FOREIGN KEY (vector_store_id, file_id) REFERENCES vector_store_files ON DELETE CASCADE
);
CREATE INDEX vector_store_file_batch_files_by_file ON vector_store_file_batch_files (vector_store_id, file_id);
