"""What somebody else adds to tipsseg: a format, a container, a model and a command."""
