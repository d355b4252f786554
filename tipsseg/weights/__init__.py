"""Resolve a model id to a folder of verified files, with weights.lock and the hub."""
