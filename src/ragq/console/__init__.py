"""What the console shows and does, as routes: jobs, queues, workers and poison."""
