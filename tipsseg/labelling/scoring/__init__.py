"""Cosines of patches -> the label and the confidence of every pixel."""
