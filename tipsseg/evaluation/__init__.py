"""Labels against truth: truth masks, pairing, scores."""
