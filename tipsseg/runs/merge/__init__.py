"""What `tipsseg merge` does."""
