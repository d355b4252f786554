"""Resolve a model id to a folder of verified files: weights.lock, the hub and hashes."""
