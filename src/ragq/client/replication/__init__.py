"""Valkey with replicas: where its primary is, and when a replica has a write."""
