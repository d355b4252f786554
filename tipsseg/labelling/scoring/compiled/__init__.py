"""Labels from cosines by loops in machine code, which numba compiles."""
