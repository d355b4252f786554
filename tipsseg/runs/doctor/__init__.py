"""`tipsseg doctor`: check an installation."""
