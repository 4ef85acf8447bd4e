"""Put documents from folders, buckets and websites into a store over the HTTP API, and keep the store like them.

A source lists its documents without reading them; only what is new or has changed is read and uploaded.
"""
