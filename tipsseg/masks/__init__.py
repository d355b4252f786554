"""Masks from outside: files of people and of tools, the names of images in them, and what formats read. All untrusted."""
