"""What callers may see and use, and who pays: plain types, without a server."""
