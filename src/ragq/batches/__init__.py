"""OpenAI's Batches: files of requests, answered in files by jobs."""
