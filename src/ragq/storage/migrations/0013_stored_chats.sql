-- A chat completion that was asked for with `store` has metadata, which its caller may change, until it expires or is deleted.
-- A response has none here.
ALTER TABLE responses ADD COLUMN model text, ADD COLUMN metadata jsonb;
CREATE INDEX stored_chats_by_age ON responses (tenant_id, created_at, id) WHERE metadata IS NOT NULL;
