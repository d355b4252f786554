"""Read and write features on disk: feature files, and the stores that contain them. No torch."""
