"""Durable question answering over your documents, through a queue."""

__version__ = "0.1.0"
