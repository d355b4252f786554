"""The commands of `tipsseg`, one module each, with the command as `app`: parse, call, print."""
