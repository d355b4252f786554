"""Turn the cosines of patches into a label and a confidence for every pixel."""
