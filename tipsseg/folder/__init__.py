"""Output folders: masks that know what they are."""
