"""What operators see of Valkey and do there: jobs that have not ended, pauses and drains."""
