"""Embedded Valkey and PostgreSQL, which `ragq up` runs as its own processes."""
