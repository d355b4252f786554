"""Learning from masks, and scores against them: arrays in, numbers out."""
