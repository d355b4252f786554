"""Regions to name, labels that exist, and names of what is in each image: a run is given them beside its images."""
