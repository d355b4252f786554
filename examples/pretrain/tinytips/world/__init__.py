"""The drawn world: its concepts, its scenes with truth masks, and their captions."""
