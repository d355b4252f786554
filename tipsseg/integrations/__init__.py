"""Labelling from within other programs. Each module needs that program's own package, and nothing here imports it unasked."""
