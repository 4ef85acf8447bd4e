"""What Valkey keeps by tenant."""
