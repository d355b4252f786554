"""Read label files that other programs or people wrote: one module per format, tolerant of known tools, with size limits."""
