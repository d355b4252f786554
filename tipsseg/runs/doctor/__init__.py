"""The command `doctor`: check an installation."""
