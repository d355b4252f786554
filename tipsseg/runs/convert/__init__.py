"""What `tipsseg convert` does."""
