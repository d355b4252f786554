"""The commands: a module of each, loaded when it is asked for."""
