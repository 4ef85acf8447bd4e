-- Tenants keep answers for different times, so what has expired is found tenant by tenant.
CREATE INDEX responses_of_tenants_to_expire ON responses (tenant_id, ended_at) WHERE job IS NOT NULL;
DROP INDEX responses_to_expire;
