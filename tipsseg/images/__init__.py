"""Image files to pixels: upright 8-bit RGB."""
