"""An output folder: its lock, its one state, its exports, and the files that runs put in place."""
