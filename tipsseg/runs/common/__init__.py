"""Share what several commands need: find images, show progress, say what happened."""
