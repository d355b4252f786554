"""`tipsseg encode`: store the features of images."""
