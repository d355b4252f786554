"""One module for each command: what it does, as functions of the library. Only `Progress` prints."""
