"""Tenants, their API keys and the removal of a tenant, in PostgreSQL."""
