"""What `tipsseg label` does with images that the folder itself can label otherwise."""
