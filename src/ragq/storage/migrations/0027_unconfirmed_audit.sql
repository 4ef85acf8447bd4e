-- An entry of what is not in PostgreSQL alone is written before, as unconfirmed; how it ended is set once. Else it is as before.
CREATE OR REPLACE FUNCTION keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('ragq.forgets', true) = 'yes' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.code = 'unconfirmed' AND to_jsonb(NEW) - 'code' = to_jsonb(OLD) - 'code' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is refused: audit_log is append-only. forget_audit_log() deletes old entries.', TG_OP;
END
$$;
