"""The commands of `tipsseg`, one module each: parse, call, print."""
