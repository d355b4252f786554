"""Shared by several commands: find images, print progress and notes, report results."""
