"""Read and write feature files, and the stores that contain them. Never imports torch."""
