-- A second wall between tenants: a role that sees and changes only rows of the tenant that `ragq.tenant` names. The program makes
-- the role and gives it the restrictive policies (tenancy/wall.py), since it may lack the right to; until then they are the owner's,
-- for whom no policy is in force. Everyone else has what GRANT allows.

-- Protect a table with tenants' data; each migration that adds one calls this. `own` is the condition for the tenant's rows. `shared`
-- is that for rows of others, which it may read and not change.
CREATE FUNCTION protect_tenants(
    protected regclass,
    own text DEFAULT 'tenant_id = (SELECT current_setting(''ragq.tenant'', true))',
    shared text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', protected);
    EXECUTE format('CREATE POLICY of_all ON %s USING (true)', protected);
    IF shared IS NULL THEN
        EXECUTE format('CREATE POLICY of_tenant ON %s AS RESTRICTIVE TO CURRENT_USER USING (%s)', protected, own);
        RETURN;
    END IF;
    EXECUTE format('CREATE POLICY tenant_reads ON %s AS RESTRICTIVE FOR SELECT TO CURRENT_USER USING (%s OR %s)', protected, own, shared);
    EXECUTE format('CREATE POLICY tenant_adds ON %s AS RESTRICTIVE FOR INSERT TO CURRENT_USER WITH CHECK (%s)', protected, own);
    EXECUTE format('CREATE POLICY tenant_changes ON %s AS RESTRICTIVE FOR UPDATE TO CURRENT_USER USING (%s)', protected, own);
    EXECUTE format('CREATE POLICY tenant_deletes ON %s AS RESTRICTIVE FOR DELETE TO CURRENT_USER USING (%s)', protected, own);
END
$$;

-- Stores, with their files and chunks, are read by whom they are shared with, who also reads that they are. A row without
-- `tenant_id` is its parent's tenant's: the parent's own policy is in force in the subquery.
DO $$
DECLARE
    own_id CONSTANT text := 'id = (SELECT current_setting(''ragq.tenant'', true))';
    shared_with CONSTANT text := 'with_tenant_id = (SELECT current_setting(''ragq.tenant'', true))';
    stores CONSTANT text := 'ANY (ARRAY(SELECT s.vector_store_id FROM store_shares s WHERE s.' || shared_with || '))';
    found record;
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS name, CASE c.relname
                   WHEN 'store_shares' THEN shared_with
                   WHEN 'vector_stores' THEN 'id = ' || stores
                   WHEN 'vector_store_files' THEN 'vector_store_id = ' || stores
                   WHEN 'chunks' THEN 'vector_store_id = ' || stores
                   WHEN 'files' THEN 'EXISTS (SELECT FROM vector_store_files m WHERE m.file_id = files.id AND m.vector_store_id = ' || stores || ')'
               END AS shared
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attname = 'tenant_id'
    LOOP
        PERFORM protect_tenants(found.name, shared => found.shared);
    END LOOP;
    PERFORM protect_tenants('tenants', own_id);
    PERFORM protect_tenants('vector_store_file_batch_files', 'EXISTS (SELECT FROM vector_store_file_batches p WHERE p.id = batch_id)');
    PERFORM protect_tenants('webhook_deliveries', 'EXISTS (SELECT FROM webhook_endpoints p WHERE p.id = endpoint_id)');
    PERFORM protect_tenants('batch_lines', 'EXISTS (SELECT FROM batches p WHERE p.id = batch_id)');
    PERFORM protect_tenants('conversation_responses', 'EXISTS (SELECT FROM conversations p WHERE p.id = conversation_id)');
    PERFORM protect_tenants('upload_parts', 'EXISTS (SELECT FROM uploads p WHERE p.id = upload_id)');
END
$$;

-- `@@` is not leakproof, so under a policy it could not use the index of words. This view has the policy's condition as one that
-- the planner may order as it likes. The view reads as its owner, so the role needs no policy here.
CREATE VIEW tenant_words AS
    SELECT tenant_id, vector_store_id, file_id, ordinal, text_search FROM chunks c
    WHERE tenant_id = (SELECT current_setting('ragq.tenant', true))
       OR vector_store_id = ANY (ARRAY(
            SELECT s.vector_store_id FROM store_shares s WHERE s.with_tenant_id = (SELECT current_setting('ragq.tenant', true))));

-- COPY is refused under a policy, so chunks are copied without the role, under this check. An older version, which sets no tenant,
-- passes while it is replaced.
CREATE FUNCTION refuse_chunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'a chunk of another tenant than that of the transaction';
END
$$;
CREATE TRIGGER refuse_chunk BEFORE INSERT ON chunks
    FOR EACH ROW WHEN (NEW.tenant_id <> nullif(current_setting('ragq.tenant', true), '')) EXECUTE FUNCTION refuse_chunk();
