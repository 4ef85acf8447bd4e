-- A suspended tenant's keys open nothing, nor do those of one that is being deleted, which is done in the background.
ALTER TABLE tenants ADD COLUMN suspended_at timestamptz, ADD COLUMN deleted_at timestamptz;
-- The keys that `ragq keys` makes, by their SHA-256: a key has 256 random bits, so a slow hash would protect nothing more.
-- `hint` is what lists show of it. A rotated key's old secret holds until `previous_until`.
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('reader', 'user', 'admin')),
    sha256 bytea NOT NULL UNIQUE,
    hint text NOT NULL,
    previous_sha256 bytea UNIQUE,
    previous_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_by_age ON api_keys (tenant_id, created_at, id);
