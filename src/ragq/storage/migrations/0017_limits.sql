-- Limits of tenants and keys, as JSON of `Limits` and `KeyLimits`; NULL: none..
ALTER TABLE tenants ADD COLUMN limits jsonb;
ALTER TABLE api_keys ADD COLUMN limits jsonb;
ALTER TABLE batches ADD COLUMN key_id text NOT NULL DEFAULT '';
-- The highest share of a month's budget that the tenant was warned of, in percent.
ALTER TABLE tenants ADD COLUMN warned_month date, ADD COLUMN warned_percent int;

-- What jobs cost, by day of UTC. An empty `key_id` is RAGQ_API_KEY's.
CREATE TABLE usage (
    tenant_id text NOT NULL REFERENCES tenants,
    day date NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    waited_ms bigint NOT NULL,
    retrieve_ms bigint NOT NULL,
    answer_ms bigint NOT NULL,
    documents bigint NOT NULL,
    pages bigint NOT NULL,
    cost numeric NOT NULL,
    PRIMARY KEY (tenant_id, day, key_id, model)
);
-- The last entry of the stream in Valkey that is counted in `usage`; `prefix` is that of its keys.
CREATE TABLE usage_positions (
    prefix text PRIMARY KEY,
    milliseconds bigint NOT NULL,
    number bigint NOT NULL
);
