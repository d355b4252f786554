"""weights.lock, the hub and hashes: from the id of a model to a folder of verified files."""
