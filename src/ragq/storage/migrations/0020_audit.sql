-- Who did what to which object, when, from where. `tenant_id` is whose admin may read it, `actor_tenant` whose key it was. `code` is
-- null for what was done, and why for what was refused: `count` says how often. No texts, no names of files, no secrets.
-- The reference lets the removal of a tenant wait for whoever is adding an entry of it.
CREATE TABLE audit_log (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    object_id text NOT NULL,
    code text,
    count int NOT NULL,
    actor_type text NOT NULL,
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    actor_role text NOT NULL,
    actor_tenant text NOT NULL,
    address text NOT NULL,
    data jsonb NOT NULL
);
CREATE INDEX audit_log_by_age ON audit_log (created_at, id);
CREATE INDEX audit_log_of_tenant_by_age ON audit_log (tenant_id, created_at, id);

-- Append-only: no statement changes or deletes an entry, but that of `forget_audit_log`. This stops mistakes, not the table's owner.
CREATE FUNCTION keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('ragq.forgets', true) = 'yes' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is refused: audit_log is append-only. forget_audit_log() deletes old entries.', TG_OP;
END
$$;
CREATE TRIGGER keep_entries BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION keep_audit_log();
CREATE TRIGGER keep_all_entries BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_log();

-- Delete up to so many of a tenant's entries that are older; returns how many.
CREATE FUNCTION forget_audit_log(of_tenant text, older_than timestamptz, most int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    forgotten bigint;
BEGIN
    PERFORM set_config('ragq.forgets', 'yes', true);  -- the function's own SET would need a superuser
    DELETE FROM audit_log WHERE id IN (
        SELECT id FROM audit_log WHERE tenant_id = of_tenant AND created_at < older_than ORDER BY created_at LIMIT most);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    PERFORM set_config('ragq.forgets', '', true);
    RETURN forgotten;
END
$$;

-- How many days a tenant's answers, files and entries of the audit log are kept; null: as the settings say.
ALTER TABLE tenants
    ADD COLUMN keep_responses_days int CHECK (keep_responses_days > 0),
    ADD COLUMN keep_files_days int CHECK (keep_files_days > 0),
    ADD COLUMN keep_logs_days int CHECK (keep_logs_days > 0);
