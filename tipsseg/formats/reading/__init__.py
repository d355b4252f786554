"""Read label files from other programs. Each module reads one format, accepts the variants of known tools, and limits sizes."""
