-- Ended jobs as columns, to be searched. The archive writes them with `responses`, in the same transaction. `state` is finished, failed or
-- canceled, `excerpt` the beginning of the question, `words` those of the question and the error.
CREATE TABLE jobs (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    key_id text NOT NULL,
    queue text NOT NULL,
    lane text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz NOT NULL,
    attempts int NOT NULL,
    error_code text,
    model text,
    input_tokens int NOT NULL,
    output_tokens int NOT NULL,
    waited_ms int,
    ran_ms int,
    worker text,
    excerpt text NOT NULL,
    words tsvector NOT NULL
);
-- By age for each way to select: all, a tenant's, a key's, and what is rare. Anything else is filtered in one of these orders.
CREATE INDEX jobs_by_age ON jobs (ended_at, id);
CREATE INDEX jobs_of_tenant_by_age ON jobs (tenant_id, ended_at, id);
CREATE INDEX jobs_of_key_by_age ON jobs (key_id, ended_at, id) WHERE key_id <> '';
CREATE INDEX jobs_not_finished_by_age ON jobs (state, ended_at, id) WHERE state <> 'finished';
CREATE INDEX jobs_with_error_by_age ON jobs (error_code, ended_at, id) WHERE error_code IS NOT NULL;
CREATE INDEX jobs_of_documents_by_age ON jobs (ended_at, id) WHERE queue = 'documents';
CREATE INDEX jobs_by_words ON jobs USING gin (words);

-- What is done to all jobs of a selection, in the background. `after` is how far it is. A process that works on it holds the lease.
CREATE TABLE job_actions (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    action text NOT NULL,
    selection jsonb NOT NULL,
    state text NOT NULL DEFAULT 'running',
    total int NOT NULL,
    done int NOT NULL DEFAULT 0,
    skipped int NOT NULL DEFAULT 0,
    after text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    leased_until timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX job_actions_by_age ON job_actions (created_at, id);
CREATE INDEX job_actions_running ON job_actions (created_at) WHERE state = 'running';
CREATE INDEX job_actions_of_tenant ON job_actions (tenant_id);

SELECT protect_tenants('jobs');
SELECT protect_tenants('job_actions');
