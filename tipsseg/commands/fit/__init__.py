"""Learn classes from masks."""
