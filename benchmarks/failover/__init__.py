"""Drills of a lost machine: the primaries of Valkey and PostgreSQL, with their disks."""
