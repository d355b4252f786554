"""Plugins for other programs. Each module requires a package of its program. tipsseg itself imports none of them."""
