"""Regions to name, existing labels, and names of what is in each image: a run is given them beside its images."""
