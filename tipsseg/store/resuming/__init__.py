"""Going on with an earlier run: the images that are left, differences in settings, and refusals."""
