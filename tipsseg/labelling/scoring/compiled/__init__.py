"""Label pixels with loops that numba compiles."""
