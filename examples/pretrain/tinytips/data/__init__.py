"""Images made ready ahead, what a step sees of them, and what is scored."""
