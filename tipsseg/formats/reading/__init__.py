"""Label files that other programs, and people, wrote: one reader a format, tolerant of what tools write, and bounded."""
