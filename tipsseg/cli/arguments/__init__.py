"""Read inputs other than arguments: a list of paths on stdin, the options of an earlier run."""
