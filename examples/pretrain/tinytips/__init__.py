"""The TIPSv2 recipe in miniature: each module at the top is a command, run as `python -m tinytips.NAME`."""
