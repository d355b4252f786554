"""Compare labels with ground truth: truth masks, pairing, scores, thresholds."""
