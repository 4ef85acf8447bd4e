-- The conversations of OpenAI's API. `item` is JSON, kept as text as in `responses`.
CREATE TABLE conversations (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    metadata jsonb NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE conversation_items (
    id text PRIMARY KEY,
    conversation_id text NOT NULL REFERENCES conversations ON DELETE CASCADE,
    tenant_id text NOT NULL,
    created_at timestamptz NOT NULL,
    item text NOT NULL
);
CREATE INDEX conversation_items_by_age ON conversation_items (conversation_id, created_at, id);

-- The responses of a conversation. `settled_at` is null until the response has ended and its items are in the conversation.
-- A settled row stays, so that the items are appended once only.
CREATE TABLE conversation_responses (
    response_id text PRIMARY KEY,
    conversation_id text NOT NULL REFERENCES conversations ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at timestamptz
);
CREATE INDEX conversation_responses_by_conversation ON conversation_responses (conversation_id, settled_at, created_at);
