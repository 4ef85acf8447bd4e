"""Measure retrieval and answers over the HTTP API, with one's own questions or public data sets, and compare two runs.

dataset, formats → store, asking → measures → report; significance and comparison for two reports.
"""
