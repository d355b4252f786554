"""Class vectors that are fitted to masks."""
