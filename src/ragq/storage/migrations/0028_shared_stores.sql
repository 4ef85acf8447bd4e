-- What other tenants share is found by functions, which are planned only when a row is another tenant's. As subqueries in the policies
-- they were planned with each statement, and a search of few chunks took a quarter longer.
CREATE FUNCTION shared_stores() RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE
RETURN ARRAY(SELECT vector_store_id FROM store_shares WHERE with_tenant_id = current_setting('ragq.tenant', true));

CREATE FUNCTION is_shared_file(id text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM vector_store_files WHERE file_id = id AND vector_store_id = ANY ((SELECT shared_stores())::text[]));

DO $$
DECLARE
    own CONSTANT text := 'tenant_id = (SELECT current_setting(''ragq.tenant'', true))';
    found record;
BEGIN
    FOR found IN
        SELECT * FROM (VALUES
            ('vector_stores', 'id = ANY ((SELECT shared_stores())::text[])'),
            ('vector_store_files', 'vector_store_id = ANY ((SELECT shared_stores())::text[])'),
            ('chunks', 'vector_store_id = ANY ((SELECT shared_stores())::text[])'),
            ('files', 'is_shared_file(id)')
        ) AS policies (protected, shared)
    LOOP
        EXECUTE format('ALTER POLICY tenant_reads ON %I USING (%s OR %s)', found.protected, own, found.shared);
    END LOOP;
END
$$;

CREATE OR REPLACE VIEW tenant_words AS
    SELECT tenant_id, vector_store_id, file_id, ordinal, text_search FROM chunks c
    WHERE tenant_id = (SELECT current_setting('ragq.tenant', true)) OR vector_store_id = ANY ((SELECT shared_stores())::text[]);
