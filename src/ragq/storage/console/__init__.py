"""What operators see and do: jobs as columns, and actions on many of them, in PostgreSQL."""
