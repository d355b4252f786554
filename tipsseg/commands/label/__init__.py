"""Label images into a folder."""
