-- Bytes that killed their worker or crashed the parser: no store reads them again until they are forgiven.
CREATE TABLE poison (
    sha256 text PRIMARY KEY,
    code text NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
