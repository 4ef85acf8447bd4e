-- Sessions of people who signed in at an OpenID provider. The cookie names a row, and is signed with RAGQ_API_KEY.
-- A subject is unique for its issuer only.
CREATE TABLE sessions (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    role text NOT NULL CHECK (role IN ('reader', 'user', 'admin')),
    issuer text NOT NULL,
    subject text NOT NULL,
    name text NOT NULL,
    groups text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_of_tenant ON sessions (tenant_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);
