"""What `tipsseg check` does."""
