"""What was typed: a list on stdin, common mistakes, the options of an earlier run."""
