"""Send images through the model: here, or on the machines of a Ray cluster."""
