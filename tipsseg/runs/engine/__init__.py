"""Run images through the model, in this process or on a Ray cluster."""
