"""The command `tipsseg merge`."""
