-- Finished responses that have left Valkey. `job` is JSON, kept as text: jsonb refuses \u0000, and json refuses NaN, so
-- that one such answer would block the archiving of all. NULL: expired; the row only shows that the job existed.
-- No reference to tenants, for the same reason.
CREATE TABLE responses (
    id text PRIMARY KEY,
    tenant_id text NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    job text
);
CREATE INDEX responses_to_expire ON responses (ended_at) WHERE job IS NOT NULL;
CREATE INDEX responses_to_forget ON responses (ended_at) WHERE job IS NULL;
