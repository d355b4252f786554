"""The version of the package, for those that import nothing else of it."""

__version__ = "0.1.0"
