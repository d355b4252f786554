"""Fits of class vectors to masks that are there: the edited masks of a run, or truth masks."""
