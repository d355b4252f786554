"""`tipsseg rank`: order images for review."""
