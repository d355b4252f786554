"""What is read in place of arguments: a list of paths on stdin, the options of an earlier run."""
