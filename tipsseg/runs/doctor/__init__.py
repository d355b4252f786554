"""What `tipsseg doctor` does."""
