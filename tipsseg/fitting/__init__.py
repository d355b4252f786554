"""Fit class vectors to masks."""
