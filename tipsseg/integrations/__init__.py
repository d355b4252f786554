"""Plugins for other programs. Each module requires the package of its program; tipsseg itself does not import them."""
