"""The commands with which people operate a service, over its HTTP API: jobs, documents, stores, a load test; and logs."""
