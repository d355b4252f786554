"""Load the model, and take images through its stages."""
