"""The command `rank`: order images for review."""
