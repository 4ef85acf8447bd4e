"""Valkey and PostgreSQL under our own supervision."""
