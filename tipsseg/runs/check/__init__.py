"""The command `tipsseg check`."""
