"""The static page of a run: pictures, labels and numbers, to be looked at in a browser without a network."""
