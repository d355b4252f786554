"""Resume an earlier run: find the remaining images, compare settings, and refuse conflicts."""
