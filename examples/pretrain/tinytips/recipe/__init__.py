"""What is trained and by which losses."""
