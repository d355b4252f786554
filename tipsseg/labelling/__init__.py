"""One image in, its LabelMap out."""
