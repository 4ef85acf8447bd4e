-- Files that come in parts. A part's bytes are in the blob store until the upload is completed, cancelled or expired.
CREATE TABLE uploads (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    filename text NOT NULL,
    purpose text NOT NULL,
    bytes bigint NOT NULL,
    file_seconds int,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'cancelled')),
    file_id text REFERENCES files ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX uploads_by_expiry ON uploads (expires_at);
CREATE INDEX uploads_by_file ON uploads (file_id);
CREATE TABLE upload_parts (
    id text PRIMARY KEY,
    upload_id text NOT NULL REFERENCES uploads ON DELETE CASCADE,
    bytes bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX upload_parts_of_upload ON upload_parts (upload_id);
