"""Score labels against ground truth."""
