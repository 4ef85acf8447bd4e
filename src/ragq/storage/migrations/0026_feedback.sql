-- What people say of an answer: one row for each, which goes when the answer does. `id` is the answer's, `key_id` the key that rated it.
CREATE TABLE feedback (
    id text PRIMARY KEY REFERENCES responses ON DELETE CASCADE,
    tenant_id text NOT NULL REFERENCES tenants,
    key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rating text NOT NULL CHECK (rating IN ('up', 'down')),
    comment text
);
CREATE INDEX feedback_of_tenant_by_age ON feedback (tenant_id, created_at, id);

-- A deleted or expired answer is a row without a job, so the reference alone would keep what was said of it.
CREATE FUNCTION drop_feedback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM feedback WHERE id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER drop_feedback AFTER UPDATE OF job ON responses
    FOR EACH ROW WHEN (NEW.job IS NULL) EXECUTE FUNCTION drop_feedback();

SELECT protect_tenants('feedback');
