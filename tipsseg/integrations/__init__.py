"""Plugins for other programs. Each module needs the package of its program; tipsseg itself does not import the modules."""
