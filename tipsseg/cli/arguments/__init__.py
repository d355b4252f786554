"""Read lists of paths from stdin or a file, and the options of an earlier run."""
