"""Data sets of shards, and the places that they are written to."""
