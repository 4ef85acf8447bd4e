"""Backups: one backup of PostgreSQL, the blob store and the queue, made while ragq runs, and its restore."""
