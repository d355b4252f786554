"""Minimum confidences and temperatures, chosen by masks that a person edited."""
