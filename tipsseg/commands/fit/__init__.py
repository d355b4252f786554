"""Learn classes and thresholds from masks."""
