"""Output folders: the lock, the state, its exports, and the files that runs write."""
