-- `metadata` and `errors`, and `request` and `outcome` of a line, are JSON, kept as text as in `responses`.
CREATE TABLE batches (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    input_file_id text NOT NULL,
    endpoint text NOT NULL,
    completion_window text NOT NULL,
    metadata text,
    status text NOT NULL DEFAULT 'validating' CHECK (status IN ('validating', 'in_progress', 'finalizing', 'completed',
        'failed', 'expired', 'cancelling', 'cancelled')),
    errors text,
    output_file_id text,
    error_file_id text,
    total int NOT NULL DEFAULT 0,
    completed int NOT NULL DEFAULT 0,
    failed int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    in_progress_at timestamptz,
    finalizing_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    cancelling_at timestamptz,
    cancelled_at timestamptz
);
CREATE INDEX batches_by_age ON batches (tenant_id, created_at, id);
CREATE INDEX unfinished_batches ON batches (created_at, id)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');

-- The lines of a batch until its files are written. `asked`: the line's job is queued or about to be.
CREATE TABLE batch_lines (
    batch_id text NOT NULL REFERENCES batches ON DELETE CASCADE,
    line int NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'asked', 'completed', 'failed')),
    request text NOT NULL,
    outcome text,
    PRIMARY KEY (batch_id, line)
);
CREATE INDEX batch_lines_waiting ON batch_lines (batch_id, line) WHERE state = 'waiting';
CREATE INDEX batch_lines_asked ON batch_lines (batch_id, line) WHERE state = 'asked';
