-- A key may be limited to stores, and has groups by which it may read documents that have readers.
ALTER TABLE api_keys ADD COLUMN vector_store_ids text[], ADD COLUMN groups text[] NOT NULL DEFAULT '{{}}';
-- Who may read a document in a store: those with one of these groups; null for all of the tenant.
ALTER TABLE vector_store_files ADD COLUMN readers text[] CHECK (readers <> '{{}}');
CREATE INDEX vector_store_files_with_readers ON vector_store_files (vector_store_id) WHERE readers IS NOT NULL;
-- Set with the first document that has readers, and then for good: from then on answers are seen by those who asked alone.
ALTER TABLE tenants ADD COLUMN has_readers boolean NOT NULL DEFAULT false;
-- The key that asked or uploaded; empty for RAGQ_API_KEY, and for what is older than this. A batch has its caller's view.
ALTER TABLE responses ADD COLUMN key_id text NOT NULL DEFAULT '';
ALTER TABLE conversations ADD COLUMN key_id text NOT NULL DEFAULT '';
ALTER TABLE uploads ADD COLUMN key_id text NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN view text;
-- Stores that another tenant may read. No reference to it, since nobody may learn by it whether a tenant exists.
CREATE TABLE store_shares (
    vector_store_id text NOT NULL REFERENCES vector_stores ON DELETE CASCADE,
    with_tenant_id text NOT NULL,
    tenant_id text NOT NULL REFERENCES tenants,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (vector_store_id, with_tenant_id)
);
CREATE INDEX store_shares_by_reader ON store_shares (with_tenant_id);
-- The same bytes under the same name are one file, so several keys may have uploaded it.
CREATE TABLE file_keys (
    file_id text NOT NULL REFERENCES files ON DELETE CASCADE,
    key_id text NOT NULL,
    tenant_id text NOT NULL REFERENCES tenants,
    PRIMARY KEY (file_id, key_id)
);
