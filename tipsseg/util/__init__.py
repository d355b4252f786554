"""Helpers for files, records, text and threads."""
