"""Label an image: prepare, encode, score, assign, refine."""
