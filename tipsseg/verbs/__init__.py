"""The verbs: one function for each command of the command line and of the library."""
