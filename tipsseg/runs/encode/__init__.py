"""What `tipsseg encode` does: the features of images into a feature store."""
