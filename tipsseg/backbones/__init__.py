"""Run the towers of a model: images and phrases in, vectors out."""
