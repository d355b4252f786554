"""The work of the commands: one package per command, without the command line."""
