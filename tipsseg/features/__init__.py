"""Features on disk: one file per image, and the folder that holds them. No torch."""
