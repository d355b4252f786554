"""The drawn world: its concepts, its scenes with ground-truth masks, and their captions."""
