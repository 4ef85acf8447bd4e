-- A tenant's endpoints. Empty `events`: all events.
CREATE TABLE webhook_endpoints (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    url text NOT NULL,
    events text[] NOT NULL DEFAULT '{{}}',
    description text,
    secret text NOT NULL,
    status text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX webhook_endpoints_by_age ON webhook_endpoints (tenant_id, created_at, id);

-- The outbox of deliveries. A process that sends one holds it until `leased_until`, and stores the outcome only if
-- `attempts` has not changed since.
CREATE TABLE webhook_deliveries (
    endpoint_id text NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    event_id text NOT NULL,
    type text NOT NULL,
    object_id text NOT NULL,
    event_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    last_status_code int,
    last_error text,
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    leased_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (endpoint_id, event_id)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (endpoint_id, created_at, event_id);
CREATE INDEX webhook_deliveries_to_forget ON webhook_deliveries (created_at) WHERE status <> 'pending';
